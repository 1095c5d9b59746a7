"""Rows for Neuronpedia's importer in a Postgres with the columns and constraints of its tables.

The tables are re-created from its published schema (apps/webapp/prisma/schema.prisma), as far as
explanations depend on them; the statement is the one its importer runs.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from label_runs import NASTY
from selfie_adapters.labelling.finished_run import open_run
from selfie_adapters.labelling.neuronpedia import to_neuronpedia

pytestmark = pytest.mark.slow

# "vector(256)" is an extension's type; a column of it is null here and of another type.
TABLES = """
CREATE TABLE "User" (id text PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE TABLE "Model" (id text PRIMARY KEY, "creatorId" text NOT NULL REFERENCES "User"(id),
  layers int NOT NULL, "neuronsPerLayer" int NOT NULL, owner text NOT NULL);
CREATE TABLE "Neuron" ("modelId" text NOT NULL REFERENCES "Model"(id), layer text NOT NULL,
  index text NOT NULL, UNIQUE ("modelId", layer, index));
CREATE TABLE "ExplanationModelType" (name text PRIMARY KEY, "displayName" text NOT NULL,
  description text NOT NULL, featured boolean NOT NULL DEFAULT true, "openRouterModelId" text,
  url text, "creatorName" text NOT NULL, "createdAt" timestamp NOT NULL DEFAULT now(),
  "updatedAt" timestamp NOT NULL DEFAULT now());
CREATE TABLE "ExplanationType" (name text PRIMARY KEY, "displayName" text NOT NULL,
  description text NOT NULL, featured boolean NOT NULL DEFAULT true,
  "isAttention" boolean NOT NULL DEFAULT false, "explainerModelSettingsId" text, settings text,
  url text, "creatorName" text NOT NULL, "creatorId" text NOT NULL REFERENCES "User"(id),
  "createdAt" timestamp NOT NULL DEFAULT now(), "updatedAt" timestamp NOT NULL DEFAULT now());
CREATE TABLE "Explanation" (id text PRIMARY KEY, "modelId" text NOT NULL REFERENCES "Model"(id),
  layer text NOT NULL, index text NOT NULL, embedding text, description text NOT NULL,
  "authorId" text NOT NULL REFERENCES "User"(id), "triggeredByUserId" text REFERENCES "User"(id),
  notes text, "scoreV1" float8 NOT NULL DEFAULT 0, "scoreV2" float8,
  "typeName" text REFERENCES "ExplanationType"(name),
  "explanationModelName" text REFERENCES "ExplanationModelType"(name),
  "createdAt" timestamp NOT NULL DEFAULT now(), "updatedAt" timestamp NOT NULL DEFAULT now(),
  FOREIGN KEY ("modelId", layer, index) REFERENCES "Neuron"("modelId", layer, index));
INSERT INTO "User" VALUES ('user1', 'somebody');
INSERT INTO "Model" VALUES ('llama3.1-8b', 'user1', 32, 14336, 'Meta');
INSERT INTO "Neuron" SELECT 'llama3.1-8b', '19-res', i::text FROM generate_series(0, 7) i;
"""


def programs() -> Path | None:
    """Where Debian or the path has initdb."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


@pytest.fixture
def psql():
    """A function that runs SQL in a cluster of the test's own, on a socket in a folder."""
    where = programs()
    if where is None:
        pytest.skip("no Postgres here: apt-get install postgresql")
    # Postgres refuses to run as root; Debian's package has a user for it.
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    with tempfile.TemporaryDirectory(prefix="selfie-pg-", ignore_cleanup_errors=True) as folder:
        if as_user:
            shutil.chown(folder, "postgres")

        def call(program: str, *arguments: str, **options) -> subprocess.CompletedProcess[str]:
            command = [*as_user, str(where / program), *arguments]
            return subprocess.run(
                command, capture_output=True, text=True, cwd=folder, timeout=600, **options
            )

        data = f"{folder}/data"
        made = call("initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "-N")
        assert made.returncode == 0, made.stderr
        options = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off"
        started = call(
            "pg_ctl", "-D", data, "-w", "-t", "600", "-l", f"{folder}/log", "-o", options, "start"
        )
        assert started.returncode == 0, started.stderr

        def run(sql: str) -> str:
            line = ["-h", folder, "-U", "postgres", "-v", "ON_ERROR_STOP=1", "-AtX"]
            done = call("psql", *line, input=sql)
            assert done.returncode == 0, done.stderr
            return done.stdout

        try:
            yield run
        finally:
            call("pg_ctl", "-D", data, "-m", "immediate", "stop")


def import_rows(psql, table: str, path: Path) -> None:
    """As importJsonlString does: the columns of the first line that the table has."""
    text = path.read_text(encoding="utf-8").replace("\\u0000", " ")
    rows = [json.loads(line) for line in text.strip("\n").split("\n")]
    names = [f"'{name}'" for name in rows[0]]
    found = psql(
        "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = "
        f"'{table}' AND column_name IN ({', '.join(names)}) ORDER BY ordinal_position;"
    )
    columns = [line.split("|") for line in found.splitlines()]
    assert len(columns) == len(rows[0])
    listed = ", ".join(f'"{name}"' for name, _ in columns)
    typed = ", ".join(f'"{name}" {kind}' for name, kind in columns)
    body = json.dumps(rows, ensure_ascii=False)
    psql(
        f'INSERT INTO "{table}" ({listed}) SELECT {listed} FROM '
        f"jsonb_to_recordset($rows${body}$rows$::jsonb) AS t({typed}) ON CONFLICT DO NOTHING;"
    )


def test_the_importer_takes_the_rows(psql, run, tmp_path):
    out = tmp_path / "explanations.jsonl"
    assert to_neuronpedia(open_run(run()), out, "llama3.1-8b", "19-res", "user1") == 6
    psql(TABLES)
    import_rows(psql, "ExplanationType", tmp_path / "explanation_type.jsonl")
    import_rows(psql, "ExplanationModelType", tmp_path / "explanation_model_type.jsonl")
    for _ in range(2):  # importing again adds nothing
        import_rows(psql, "Explanation", out)
        found = psql('SELECT json_agg(description ORDER BY index::int) FROM "Explanation";')
        assert json.loads(found) == [label.replace("\x00", " ") for label in NASTY]


def test_the_tables_refuse_rows_without_an_author_or_type(psql, run, tmp_path):
    psql(TABLES)
    to_neuronpedia(open_run(run()), tmp_path / "bare.jsonl", "llama3.1-8b", "19-res")
    with pytest.raises(AssertionError, match='null value in column "id"'):
        import_rows(psql, "Explanation", tmp_path / "bare.jsonl")
    to_neuronpedia(open_run(run()), tmp_path / "rows.jsonl", "llama3.1-8b", "19-res", "user1")
    with pytest.raises(AssertionError, match="foreign key"):
        import_rows(psql, "Explanation", tmp_path / "rows.jsonl")
