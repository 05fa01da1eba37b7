"""Effects: the only packages that talk to Open vSwitch are here.  Everything runs in one asyncio loop, no threads."""
