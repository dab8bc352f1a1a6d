"""Pure rules: no I/O, no asyncio, no clock, no logging. Time comes in as `now_s`."""
