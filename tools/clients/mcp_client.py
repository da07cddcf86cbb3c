"""The official `mcp` client against `colibri serve` (streamable HTTP) and `colibri mcp` (standard input and output).

    pip install -r tools/clients/requirements.txt
    python tools/clients/mcp_client.py http://127.0.0.1:8017            # a running server
    python tools/clients/mcp_client.py colibri mcp --index DIR          # a program to start

There must be examples/documents/invoice.pdf among the documents. Lists the tools, searches, gets the picture of the
page that was found, asks; ends with an assertion where something is missing.
"""

import asyncio
import base64
import os
import sys

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

try:
    from mcp.client.streamable_http import streamable_http_client
except ImportError:
    from mcp.client.streamable_http import streamablehttp_client as streamable_http_client

TOOLS = {"search_documents", "ask_documents", "get_page", "list_documents"}


def field(value, *names):
    """A field under the name that this version of the client gives it."""
    return next(found for name in names if (found := getattr(value, name, None)) is not None)


async def use(session: ClientSession) -> None:
    await session.initialize()
    tools = {tool.name for tool in (await session.list_tools()).tools}
    assert tools >= TOOLS, tools
    print("tools:", *sorted(tools))

    listed = await session.call_tool("list_documents", {})
    documents = field(listed, "structured_content", "structuredContent")["documents"]
    print("documents:", len(documents))

    found = await session.call_tool("search_documents", {"query": "total of the invoice from Osprey Print Works"})
    hit = field(found, "structured_content", "structuredContent")["hits"][0]
    assert hit["name"] == "invoice.pdf", hit
    print("found:", hit["name"], "page", hit["page"])

    page = await session.call_tool("get_page", {"page_id": hit["page_id"]})
    image = next(content for content in page.content if content.type == "image")
    bytes_of_it = base64.b64decode(image.data)
    assert bytes_of_it.startswith(b"\x89PNG"), bytes_of_it[:8]
    print("page:", field(image, "mime_type", "mimeType"), len(bytes_of_it), "bytes")

    asked = await session.call_tool("ask_documents", {"question": "What is the total of the invoice?"})
    answer = next(content for content in asked.content if content.type == "text").text
    assert answer.strip(), asked
    print("answer:", repr(answer[:100]))


async def main(first: str, *rest: str) -> None:
    if first.startswith("http"):
        async with streamable_http_client(f"{first.rstrip('/')}/mcp") as streams:
            async with ClientSession(streams[0], streams[1]) as session:
                await use(session)
    else:
        program = StdioServerParameters(command=first, args=list(rest), env=dict(os.environ))
        async with stdio_client(program) as (read, write):
            async with ClientSession(read, write) as session:
                await use(session)
    print("ok")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
