"""What ``runtime.doctor`` looks at: one part of the machine a file, each a list of findings."""
