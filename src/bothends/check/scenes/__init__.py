"""Scenes: dialogues of several clients with a server, as a contract describes them, and their cases."""
