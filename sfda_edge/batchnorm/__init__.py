"""BatchNorm statistics: find, estimate, mix, check."""
