"""The same protocol on libuv's event loop."""

import uvloop
from asyncio_protocol import main  # type: ignore[import-not-found, unused-ignore]

uvloop.run(main())
