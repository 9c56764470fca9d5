"""The suites: tables of cases, one file each, and the stimuli that they name."""
