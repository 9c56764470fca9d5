import asyncio, sys


async def price(fruit):
    reader, writer = await asyncio.open_connection("127.0.0.1", int(sys.argv[1]))
    writer.write(fruit.encode() + b"\n")
    answer = await reader.read()
    writer.close()
    return int(answer)


print(asyncio.run(price("pear")))
