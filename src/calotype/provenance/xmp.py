"""The XMP packet of a picture: what tools without C2PA read, IPTC's field of its origin above all.

It goes into the file before it is signed, so the claim covers it. It holds nothing of the prompt:
that is in the claim, where a tenant can say whether it is told. The format: XMP specification part
1 (ISO 16684-1); the field: IPTC photo metadata standard, Digital Source Type.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import quoteattr

from calotype import __version__

_PACKET = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about=""
 xmlns:xmp="http://ns.adobe.com/xap/1.0/"
 xmlns:dc="http://purl.org/dc/elements/1.1/"
 xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/"
 xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
 xmp:CreatorTool={tool}
 dc:identifier={image}
 photoshop:Credit={model}
 Iptc4xmpExt:DigitalSourceType={source}/>
</rdf:RDF>
</x:xmpmeta>
<?xpacket end="r"?>"""


def packet(recipe: Mapping[str, Any], source_type: str) -> bytes:
    """The packet of a picture with this manifest (``Manifest.to_dict``), as UTF-8."""
    return _PACKET.format(
        tool=quoteattr(f"Calotype {__version__}"),
        image=quoteattr(str(recipe["image"])),
        model=quoteattr(f"Made with AI: {recipe['model']}"),
        source=quoteattr(source_type),
    ).encode()
