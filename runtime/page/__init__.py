"""The page of a running stream: live picture, figures and metrics, for any browser."""
