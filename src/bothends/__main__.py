"""The command `bothends`, also as `python -m bothends`: load the command line, and run it.

Loading takes a tenth of a second, in which ^C would print a traceback. So until everything is loaded, SIGINT
has its default action and ends the process, unless it is ignored, as in a background job of sh(1).
"""

import signal


def main() -> None:
    """Run the command line of this process, and exit."""
    interruptible = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if interruptible:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from bothends.cli.main import main as run_command_line

    if interruptible:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run_command_line()


if __name__ == "__main__":
    main()
