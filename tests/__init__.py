"""The tests mirror src/bothends: tests/engines/test_epoll.py tests engines/epoll.py."""
