"""StreetSynth: procedural street scenes with exact labels, drawn in several styles."""
