"""The server on the page about serving without vLLM answers as the converted model does."""

import base64
import importlib
import io
from pathlib import Path

import pytest
from tests.docs.pages import DOCS, blocks_of

pytest.importorskip("fastapi")
pytest.importorskip("httpx")

PAGE = DOCS / "how-to" / "serve-without-vllm.md"


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_the_server_of_the_page_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from fastapi.testclient import TestClient

    from photomask.attention import HeadPlan, Pattern, convert, encode
    from photomask.prompts import Prompt
    from photomask.zoo import picture_questions

    (code,) = (block.code for block in blocks_of(PAGE) if block.file == "server.py")
    (tmp_path / "photomask_server.py").write_text(code, encoding="utf-8")
    model, processor = picture_questions.load_vision_language()
    plan = HeadPlan.uniform(model, Pattern.INTRA_IMAGE)
    plan.save(tmp_path / "plan.json")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    client = TestClient(importlib.import_module("photomask_server").app)

    question = picture_questions.held_out_prompts(1, pictures=3)[0]
    text, files = str(question.content[-1]), []
    for picture in question.images():
        buffer = io.BytesIO()
        picture.save(buffer, format="PNG")
        files.append(base64.b64encode(buffer.getvalue()).decode())
    found = client.post("/answer", json={"pictures": files, "text": text})
    inputs = encode(processor, Prompt((*question.images(), text))).inputs
    tokens = convert(model, plan).generate(**inputs, max_new_tokens=16, do_sample=False)
    said = tokens[0, inputs["input_ids"].shape[1] :]
    assert found.json() == {"answer": processor.tokenizer.decode(said, skip_special_tokens=True)}

    for wrong in ("no base64!", base64.b64encode(b"no picture").decode()):
        assert client.post("/answer", json={"pictures": [wrong], "text": ""}).status_code == 422
