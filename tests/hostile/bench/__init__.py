"""Result files of others, for `bench compare`."""
