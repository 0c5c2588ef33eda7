"""Rewards that are scored by another process or machine: `remote` is one line of configuration.

    reward: {name: remote, url: "http://127.0.0.1:8300", reward: gsm8k}

A call to `RemoteReward` takes this way: `reward` finds the client of its event loop; `gathering`
cuts large calls and joins small ones into requests; `sending` gives each request to an `endpoint`,
again and elsewhere where that may help; `body` turns it into bytes, `transport` moves them, and
`reply` checks what comes back.
"""

from guerdon.remote.arrays import shared_array
from guerdon.remote.reward import RemoteReward

__all__ = ["RemoteReward", "shared_array"]
