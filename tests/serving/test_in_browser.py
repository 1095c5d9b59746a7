from __future__ import annotations

import dataclasses
import json
import threading

import pytest
from safetensors.torch import load_file

from browser import chromium, violations
from selfie_adapters.serving.requests import Limits
from serving.conftest import wait_until
from serving.test_requests import npy

pytestmark = pytest.mark.slow
SECONDS = 60_000  # in milliseconds


def opened(page, client, token=""):
    page.goto(f"http://127.0.0.1:{client.port}/{token}")
    page.get_by_text("3 layers, d_model 48").wait_for()


def status(page, text):
    page.locator("#status", has_text=text).wait_for(timeout=SECONDS)


def test_a_prompt_is_typed_and_cells_fill_in(serve):
    client = serve()
    with chromium() as page:
        opened(page, client)
        page.fill("[name=prompt]", "an owl <b>")
        page.select_option("#read [name=chat]", "none")
        page.fill("#read [name=layers]", "1:")
        page.keyboard.press("Tab")
        page.click("#read .go")
        status(page, "20 cells read.")
        cells = page.locator("td.cell")
        assert cells.count() == 20
        assert page.locator("td.waiting").count() == 0
        expected = {
            (str(c["layer"]), str(c["position"])): c["label"]
            for c in client.read("an owl <b>", layers="1:").cells
        }
        for node in cells.all():
            place = node.get_attribute("data-layer"), node.get_attribute("data-position")
            assert node.text_content() == expected[place]
        cells.first.click()
        assert "nats per token over the zero vector" in page.locator(".details").inner_text()
        hosts = {address.split("/")[2] for address in page.asked}
        assert hosts == {f"127.0.0.1:{client.port}"}


def test_cells_are_seen_while_others_are_still_waited_for(serve):
    client, go_on = serve(), threading.Event()
    read = client.service.read

    def halting(plan, adapters, lens):
        for event in read(plan, adapters, lens):
            yield event
            if event["event"] == "cells":
                assert go_on.wait(60)

    client.service.read = halting
    with chromium() as page:
        opened(page, client)
        page.fill("[name=prompt]", "several owls")
        page.select_option("#read [name=chat]", "none")
        page.click("#read .go")
        status(page, "16 of 36")
        assert page.locator("td.cell:not(.waiting)").count() == 16
        assert page.locator("td.waiting").count() == 20
        go_on.set()
        status(page, "36 cells read.")
        assert page.locator("td.waiting").count() == 0


def test_stopping_frees_the_place(serve):
    client, go_on = serve(), threading.Event()

    def endless(_plan, _adapters, _lens):
        yield {"event": "waiting", "ahead": 7}
        assert go_on.wait(60)

    client.service.read = endless
    with chromium() as page:
        opened(page, client)
        page.fill("[name=prompt]", "owl")
        page.click("#read .go")
        status(page, "Waiting: 7 ahead.")
        page.get_by_role("button", name="Stop").click()
        status(page, "Stopped.")
        go_on.set()
        wait_until(lambda: client.service.worker.taken == 0)


def test_two_adapters_side_by_side(serve):
    client = serve()
    with chromium() as page:
        opened(page, client)
        page.fill("[name=prompt]", "owl")
        page.select_option("#read [name=chat]", "none")
        page.select_option("#read [name=second]", label="full_rank")
        page.click("#read .go")
        status(page, "18 cells read.")
        assert page.locator(".grid h2").all_inner_texts() == ["scalar_affine", "full_rank"]
        label = page.locator("#read label", has_text="Compared with a second adapter")
        assert label.is_visible()
        assert label.locator("option[disabled]").all_inner_texts() == ["scalar_affine"]
        page.locator(".grid >> nth=1 >> td.cell >> nth=4").click()
        assert page.locator('td[aria-selected="true"]').count() == 2
        assert page.locator(".details .label").count() == 2


def test_a_vector_is_pasted_and_another_uploaded(serve, golden_dir, tmp_path):
    client = serve()
    (vectors,) = load_file(golden_dir / "vectors.safetensors").values()
    (tmp_path / "two.npy").write_bytes(npy(vectors[:2].numpy()))
    with chromium() as page:
        opened(page, client)
        page.get_by_role("tab", name="Label a vector").click()
        page.fill("[name=vectors]", json.dumps(vectors[0].tolist()))
        page.click("#label .go")
        status(page, "1 label written.")
        first = page.locator("#labels td.text").text_content()
        page.fill("[name=scales]", "1, 2")
        page.set_input_files("[name=file]", tmp_path / "two.npy")
        page.click("#label .go")
        status(page, "4 labels written.")
        texts = page.locator("#labels td.text")
        assert texts.count() == 4
        assert texts.first.text_content() == first


def test_what_the_server_refuses_is_told_in_its_words(serve):
    client = serve(dataclasses.replace(Limits(), cells=5))
    with chromium() as page:
        opened(page, client)
        page.fill("[name=prompt]", "many owls")
        page.click("#read .go")
        status(page, "5 are read at most. Choose fewer layers")
        assert page.locator("#status.bad").count() == 1
        page.expected_errors = [
            "Failed to load resource: the server responded with a status of 413 "
            "(Request Entity Too Large)"
        ]


def test_the_token_in_the_address_opens_the_door(serve):
    client = serve(token="correct-horse")
    with chromium() as page:
        opened(page, client, "#token=correct-horse")
        page.fill("[name=prompt]", "owl")
        page.select_option("#read [name=chat]", "none")
        page.click("#read .go")
        status(page, "9 cells read.")
        assert not any("correct-horse" in address.split("#")[0] for address in page.asked)


def test_the_chat_format_of_the_adapter_is_the_default(serve):
    client = serve()
    with chromium() as page:
        opened(page, client)
        page.locator("#read [name=chat] option:has-text('(')").first.wait_for(state="attached")
        shown = page.locator("#read [name=chat] option").first
        assert shown.get_attribute("value") == ""
        chat = client.get("/api/info").json["adapters"][0]["chat"]
        name = {"template": "chat template", "bare": "bare turn", "none": "plain text"}[chat]
        assert shown.inner_text() == f"as trained ({name})"


def test_one_adapter_is_compared_with_nothing(serve, served_adapters):
    client = serve(adapters=served_adapters[:1])
    with chromium() as page:
        opened(page, client)
        assert page.locator("[name=second]").first.is_hidden()


def test_inputs_of_a_row_are_aligned(serve):
    client = serve()
    with chromium() as page:
        opened(page, client)
        fields = "#read .row input:not([type=checkbox]), #read .row select"
        boxes = [node.bounding_box() for node in page.locator(fields).all()]
        assert len({round(box["height"]) for box in boxes}) == 1
        assert len({round(box["width"]) for box in boxes}) == 1
        rows = {}
        for box in boxes:
            rows.setdefault(round(box["y"]), []).append(round(box["x"]))
        assert len(rows) <= 2


def test_a_reading_is_shared_by_its_address_and_downloaded(serve, tmp_path):
    client = serve(token="correct-horse")
    with chromium() as page:
        opened(page, client, "#token=correct-horse")
        page.fill("[name=prompt]", "an owl <b>")
        page.select_option("#read [name=chat]", "none")
        page.fill("#read [name=layers]", "1:")
        page.click("#read .go")
        status(page, "20 cells read.")
        link = page.locator("#link").get_attribute("href")
        assert "token" not in link
        assert "token=correct-horse" in page.url
        saved = {}
        for name in ("page", "json"):
            with page.expect_download() as found:
                page.click(f"#download-{name}")
            saved[name] = tmp_path / found.value.suggested_filename
            found.value.save_as(saved[name])
        cells = page.locator("td.cell").evaluate_all("nodes => nodes.map(n => n.ariaLabel)")
        content = json.loads(saved["json"].read_text(encoding="utf-8"))
        assert len(content["readings"][0]["cells"]) == 20
        assert content["asked"]["prompt"] == "an owl <b>"
        assert "correct-horse" not in saved["page"].read_text(encoding="utf-8")
        page.asked.clear()
        page.goto(saved["page"].as_uri())
        page.locator("td.cell").first.wait_for()
        again = page.locator("td.cell").evaluate_all("nodes => nodes.map(n => n.ariaLabel)")
        assert again == cells
        assert page.asked == [saved["page"].as_uri()]
        # the address alone, in a new window, reads again
        page.goto("about:blank")
        page.goto(f"http://127.0.0.1:{client.port}/{link}&token=correct-horse")
        status(page, "20 cells read.")
        assert page.input_value("[name=prompt]") == "an owl <b>"
        assert page.locator("td.cell").evaluate_all("nodes => nodes.map(n => n.ariaLabel)") == cells


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280, 1920])
def test_the_app_never_scrolls_sideways_and_axe_finds_nothing(serve, scheme, width):
    client = serve()
    with chromium(viewport={"width": width, "height": 900}, color_scheme=scheme) as page:
        opened(page, client)
        page.fill("[name=prompt]", "many owls in one sentence")
        page.select_option("#read [name=chat]", "none")
        page.click("#read .go")
        status(page, "cells read.")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert violations(page) == []
