"""What each subcommand of sfda-edge does; cli.py has their arguments."""
