"""Programs that the tests of scenes judge: right ones, and wrong ones by the name of a mistake."""
