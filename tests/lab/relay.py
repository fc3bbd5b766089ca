"""Stands between an agent and its engine, so that a test can cut the two apart.

    python relay.py LISTEN ENGINE

relays the unix socket LISTEN to the unix socket ENGINE. SIGKILL is the cut: connections break off
in the middle, and new ones are refused, while the engine knows of nothing.
"""

import asyncio
import sys
from pathlib import Path

CHUNK = 65536


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while chunk := await reader.read(CHUNK):
            writer.write(chunk)
            await writer.drain()
    except ConnectionError:
        pass  # The other side has gone, and that ends this one.
    finally:
        writer.close()


async def main(listen: str, engine: str) -> None:
    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_engine, to_engine = await asyncio.open_unix_connection(engine)
        await asyncio.gather(_pump(reader, to_engine), _pump(from_engine, writer))

    Path(listen).unlink(missing_ok=True)
    server = await asyncio.start_unix_server(relay, listen)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
