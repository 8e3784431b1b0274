"""What this machine does to a process that does nothing wrong: `python -m tests.chaos.control FILE`.

The same loop as in `probed`, in a process of its own that has nothing else to do: where it wakes late, the
machine was busy or stood still, and nobody else can be blamed for it.
"""

import asyncio
import os
import sys

from tests.chaos.probed import Pauses

if __name__ == "__main__":

    async def main() -> None:
        """Until whoever started this is gone."""
        watching = asyncio.create_task(Pauses(sys.argv[1]).watch())
        parent = os.getppid()
        while os.getppid() == parent:
            await asyncio.sleep(1)
        watching.cancel()

    asyncio.run(main())
