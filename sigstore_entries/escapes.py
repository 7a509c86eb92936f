"""Characters that decoding writes as escapes. The table is fixed: keys of the archive follow from it.

Python's own tables differ between its releases, and two installations must derive equal keys from equal bytes.
"""

import re
from typing import Final

# Categories Cc, Cf, Co, Cs, Zl, Zp and Zs of Unicode 15.1 without the space, and the noncharacters. Characters that no
# version up to that one assigned are not among them.
_RANGES: Final = (
    (0x0, 0x1F),
    (0x7F, 0xA0),
    (0xAD, 0xAD),
    (0x600, 0x605),
    (0x61C, 0x61C),
    (0x6DD, 0x6DD),
    (0x70F, 0x70F),
    (0x890, 0x891),
    (0x8E2, 0x8E2),
    (0x1680, 0x1680),
    (0x180E, 0x180E),
    (0x2000, 0x200F),
    (0x2028, 0x202F),
    (0x205F, 0x2064),
    (0x2066, 0x206F),
    (0x3000, 0x3000),
    (0xD800, 0xF8FF),
    (0xFDD0, 0xFDEF),
    (0xFEFF, 0xFEFF),
    (0xFFF9, 0xFFFB),
    (0x110BD, 0x110BD),
    (0x110CD, 0x110CD),
    (0x13430, 0x1343F),
    (0x1BCA0, 0x1BCA3),
    (0x1D173, 0x1D17A),
    (0xE0001, 0xE0001),
    (0xE0020, 0xE007F),
    (0xF0000, 0x10FFFF),
    *((plane + 0xFFFE, plane + 0xFFFF) for plane in range(0, 0xF0000, 0x10000)),
)
# Compiled at its first use, a millisecond that few commands need.
_ESCAPED: Final = "[" + "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in _RANGES) + "]"


def escaped(text: str) -> str:
    r"""`text` with these characters written as `\t`, `\n`, `\r`, `\xHH`, `\uHHHH` or `\UHHHHHHHH`."""
    return re.sub(_ESCAPED, lambda found: found[0].encode("unicode_escape").decode("ascii"), text)
