"""Neuronpedia's own client sends what the exports hold: tried against a server on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import torch

from label_runs import row
from selfie_adapters.labelling.finished_run import open_run
from selfie_adapters.labelling.neuronpedia import to_neuronpedia_vectors
from selfie_adapters.labelling.neuronpedia_upload import to_neuronpedia_upload
from selfie_adapters.model import load_model
from tiny_sae import tiny_sae

CLIENT = "neuronpedia==1.2.1"
# The client's classes made from the rows, then the rows as docs/labelling.md sends them.
SCRIPT = """
import json, sys
from neuronpedia.np_activation import Activation
from neuronpedia.np_explanation import Explanation
from neuronpedia.np_feature import Feature
from neuronpedia.requests.base_request import NPRequest
from neuronpedia.requests.feature_request import FeatureRequest
from neuronpedia.requests.vector_request import VectorRequest

NPRequest.BASE_URL = sys.argv[1]
features, vectors = ([json.loads(line) for line in open(path)] for path in sys.argv[2:])
for body in features:
    made = []
    for one in body["features"]:
        where = (body["modelId"], body["source"], one["index"])
        explanations = [
            Explanation(*where, e["text"], e["methodName"], e["modelName"])
            for e in one["explanations"]
        ]
        activations = [Activation(*where, **a) for a in one["activations"]]
        made.append(
            Feature(*where, one["density"], explanations=explanations, activations=activations)
        )
    FeatureRequest().upload_batch(body["modelId"], body["source"], made)
for body in vectors:
    names = ("vectorLabel", "modelId", "layerNumber", "hookType", "vector")
    VectorRequest().new(*(body[name] for name in names), body["vectorDefaultSteerStrength"])
for body in features:
    NPRequest("feature").send_request("upload-batch", json=body)
for body in vectors:
    NPRequest("vector").send_request("new", json=body)
"""
VECTOR = dict.fromkeys(("modelId", "source", "index", "label", "hookName"), "x")
ANSWER = {"url": "x", "vector": {**VECTOR, "values": [], "defaultSteerStrength": 1}}


@pytest.fixture
def server():
    """Its address, and what it was sent: (path, key, body)."""
    sent = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            sent.append((self.path, self.headers["X-Api-Key"], json.loads(body)))
            answer = json.dumps(ANSWER).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:
            pass

    http = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{http.server_port}/api", sent
    http.shutdown()
    thread.join()
    http.server_close()


@pytest.mark.slow
def test_the_client_sends_the_rows_as_they_are(server, golden_dir, run, tmp_path):
    packages = tmp_path / "packages"
    install = [sys.executable, "-m", "pip", "install", "-q", "--target", str(packages), CLIENT]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"{CLIENT} cannot be installed: {done.stderr.strip().splitlines()[-1:]}")
    model = load_model(str(golden_dir / "model"), "float32")
    tiny_sae("standard", "blocks.1.hook_resid_post", d_in=model.d_model).save_model(tmp_path / "s")
    finished = open_run(run([row(i, f"label {i}") for i in range(8)]))
    features, vectors = tmp_path / "f.jsonl", tmp_path / "v.jsonl"
    prompts = ["owls fly at night", "a bee", "fog"]
    to_neuronpedia_upload(finished, features, "m", "1-s", model, str(tmp_path / "s"), prompts)
    to_neuronpedia_vectors(finished, vectors, "m", layer=1)
    address, sent = server
    environment = {**os.environ, "PYTHONPATH": str(packages), "NEURONPEDIA_API_KEY": "key"}
    command = [sys.executable, "-c", SCRIPT, address, str(features), str(vectors)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [
        (f"/api/{path}", "key", json.loads(line))
        for file, path in ((features, "feature/upload-batch"), (vectors, "vector/new"))
        for line in file.read_text().splitlines()
    ]
    assert len(rows) == 1 + 8
    assert sent[9:] == rows  # as the docs send them
    assert sent[1:9] == rows[1:]
    for (_, _, made), (_, _, written) in zip(sent[:1], rows[:1], strict=True):
        # The client's classes have fields for logits, which the rows leave out or have as null.
        assert {**made, "features": None} == {**written, "features": None}
        for mine, theirs in zip(written["features"], made["features"], strict=True):
            assert {"topLogits": None, "bottomLogits": None} | mine == theirs
    assert torch.tensor(rows[-1][2]["vector"]).isfinite().all()
