"""Make fp16 and int8 graphs that pass the gate."""
