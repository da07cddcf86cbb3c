"""The official `openai` client against a running `colibri serve`.

    pip install -r tools/clients/requirements.txt
    colibri serve &     # with examples/documents/invoice.pdf among its documents
    python tools/clients/openai_client.py http://127.0.0.1:8017 examples/documents/chart.png [KEY]

Ends with an assertion where something is not as OpenAI's API has it. The picture goes to the generator; a server
without one refuses it, and that is said.
"""

import base64
import sys

from openai import APIStatusError, NotFoundError, OpenAI

QUESTION = [{"role": "user", "content": "What is the total of the invoice from Osprey Print Works?"}]


def main(address: str, picture: str, key: str = "none") -> None:
    client = OpenAI(base_url=f"{address.rstrip('/')}/v1", api_key=key)
    models = [model.id for model in client.models.list()]
    assert models[0] == "colibri", models
    print("models:", *models)

    pieces, annotations, usage, finish = [], None, None, None
    stream = client.chat.completions.create(
        model="colibri", messages=QUESTION, stream=True, stream_options={"include_usage": True}
    )
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            pieces.append(choice.delta.content or "")
            annotations = getattr(choice.delta, "annotations", None) or annotations
            finish = choice.finish_reason or finish
    streamed = "".join(pieces).strip()
    assert streamed and finish in ("stop", "length") and usage is not None, (streamed, finish, usage)
    print(f"streamed in {len(pieces)} pieces: {streamed[:100]!r}")

    whole = client.chat.completions.create(model="colibri", messages=QUESTION).choices[0].message
    assert whole.content.strip() == streamed, (whole.content, streamed)
    for note in whole.annotations or []:
        cited = note.url_citation
        # Empty where the page is read and not named in the text.
        assert whole.content[cited.start_index : cited.end_index] in (cited.title, ""), cited
        print("cites:", cited.title, cited.url)
    # A generator of noise names no page; quotes and real models do.
    assert whole.annotations or finish == "length", "the answer cites no page"
    assert [note["url_citation"]["title"] for note in annotations or []] == [
        note.url_citation.title for note in whole.annotations or []
    ]

    with open(picture, "rb") as file:
        data = base64.b64encode(file.read()).decode()
    content = [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}},
        {"type": "text", "text": "What does this picture show?"},
    ]
    try:
        seen = client.chat.completions.create(
            model="colibri", messages=[{"role": "user", "content": content}], max_completion_tokens=20
        )
        # A generator of noise writes noise; the tokens it read are those of the picture.
        assert seen.usage.prompt_tokens > 50, seen.usage
        print(f"picture: {seen.usage.prompt_tokens} tokens read, {seen.choices[0].message.content!r}")
    except APIStatusError as error:
        assert error.body["code"] == "no_generator", error
        print("picture: refused, since this server has no generator:", error.body["message"])

    try:
        rows = client.embeddings.create(model="any", input="total", encoding_format="float").data[0]
        flat = client.embeddings.create(model="any", input="total").data[0]
        assert len(rows.embedding) * len(rows.embedding[0]) == len(flat.embedding), flat.shape
        assert flat.shape == [len(rows.embedding), len(rows.embedding[0])], flat.shape
        print("embedding:", flat.shape)
    except APIStatusError as error:
        assert error.body["code"] == "no_retriever", error
        print("embedding: refused, since this server has no retriever")

    try:
        client.chat.completions.create(model="gpt-4o", messages=QUESTION)
        raise AssertionError("a model that is not there answers")
    except NotFoundError as error:
        print("unknown model:", error.body["message"])
    print("ok")


if __name__ == "__main__":
    main(*sys.argv[1:])
