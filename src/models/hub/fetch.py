# Fetches a model from the hub into its cache. Run in the interpreter of an engine's
# environment, so that cache, tokens, proxies and Xet are those that the engine reads.
#
# Says JSON lines on standard output: first a plan of what is there and what is missing. Goes
# on when it reads "go", and ends when standard input does: with who started it. Each large file
# is written into a part of its own beside its place, held against the checksum that the hub
# states, and only then put there; a part that was left is gone on with. huggingface_hub 2
# itself begins anew after a kill.
import hashlib
import importlib
import json
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

answer = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
wanted = json.loads(sys.argv[1])
speaking = threading.Lock()


def say(**what):
    with speaking:
        print(json.dumps(what), file=answer, flush=True)


def fail(kind, detail="", file=""):
    say(event="failed", kind=kind, detail=str(detail)[:600], file=file)
    os._exit(1)


try:
    from huggingface_hub import HfApi, constants, file_download, hf_hub_download, hf_hub_url
    from huggingface_hub import get_hf_file_metadata
    from huggingface_hub.utils import build_hf_headers
except ImportError as error:
    fail("no-hub", error)

#: Bytes that are read at once instead of 64 KiB: it saves more than the checksum costs.
READ_BYTES = 1 << 20
for library in ("httpcore2", "httpcore"):
    try:
        for module, kind in (("http11", "HTTP11Connection"), ("http2", "HTTP2Connection")):
            connection = getattr(importlib.import_module(f"{library}._sync.{module}"), kind)
            if hasattr(connection, "READ_NUM_BYTES"):
                connection.READ_NUM_BYTES = READ_BYTES
    except (ImportError, AttributeError):
        pass  # Another transport, which reads as it likes.

#: Attempts of one call, and files that are fetched at once.
ATTEMPTS, AT_ONCE = 5, 8
#: Bytes: of a small file that is read whole, of the first look at a head, and of the longest.
SMALL, FIRST, HEAD = 32 << 20, 1 << 16, 6 << 20
#: Files of weights whose heads are read.
HEADS = 2000
#: Answers and errors after which the same call may go well.
PASSING = {408, 425, 429, 500, 502, 503, 504}
BROKEN = {"ConnectionError", "TransportError", "Timeout", "TimeoutException", "ProtocolError", "Short"}
#: Weights, in the order in which engines take them, and what they take only by its name.
WEIGHTS = ((".safetensors",), (".bin", ".pt"))
OTHER = (".onnx", ".onnx_data", ".gguf", ".h5", ".msgpack", ".ot", ".tflite", ".mlmodel", ".pth", ".ckpt")
TRAINING = ("training_args.", "optimizer.", "scheduler.", "rng_state")


class Wrong(Exception):
    """What the hub says or sends is not to be had."""

    def __init__(self, kind, detail, file=""):
        super().__init__(detail)
        self.kind, self.file = kind, file


class Short(Exception):
    """A file ended before its end."""


def causes(error):
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def status_of(error):
    answers = (getattr(cause, "response", None) for cause in causes(error))
    return next((answer.status_code for answer in answers if answer is not None), None)


def pause_of(error, attempt):
    for cause in causes(error):
        headers = getattr(getattr(cause, "response", None), "headers", {})
        after = headers.get("retry-after", "")
        if after.isdigit():
            return min(int(after), 60)
    return 2 ** attempt


def again(call, name=""):
    """Calls, and calls again where that may help."""
    for attempt in range(ATTEMPTS):
        try:
            return call()
        except Exception as error:
            kinds = {kind.__name__ for cause in causes(error) for kind in type(cause).__mro__}
            status = status_of(error)
            passing = status in PASSING or (status is None and kinds & BROKEN)
            if not passing or attempt + 1 == ATTEMPTS or "OfflineModeIsEnabled" in kinds:
                raise
            seconds = pause_of(error, attempt)
            say(event="waits", seconds=seconds, status=status or 0, file=name)
            time.sleep(seconds)


def kind_of(error):
    """What went wrong, as one of our words."""
    own = next((cause for cause in causes(error) if isinstance(cause, Wrong)), None)
    if own:
        return own.kind
    kinds = {kind.__name__ for cause in causes(error) for kind in type(cause).__mro__}
    status = status_of(error)
    for name, kind in (
        ("OfflineModeIsEnabled", "offline"), ("GatedRepoError", "gated"), ("DisabledRepoError", "disabled"),
        ("RevisionNotFoundError", "revision"), ("RepositoryNotFoundError", "missing"),
        ("HFValidationError", "name"), ("RemoteEntryNotFoundError", "entry"),
    ):
        if name in kinds:
            return kind
    if status is not None:
        named = {401: "refused", 403: "refused", 404: "missing", 429: "busy"}
        return named.get(status, "server" if status >= 500 else "status")
    numbers = {getattr(cause, "errno", None) for cause in causes(error)}
    if numbers & {28, 122}:  # ENOSPC, EDQUOT
        return "disk"
    if kinds & {"PermissionError"} or 30 in numbers:  # EROFS
        return "permission"
    if kinds & {"JSONDecodeError", "FileMetadataError", "KeyError", "TypeError", "AssertionError"}:
        return "no-answer"
    if "CERTIFICATE_VERIFY_FAILED" in " ".join(map(str, causes(error))):
        return "certificate"
    if "Short" in kinds:
        return "short"
    return "unreachable" if kinds & BROKEN else "other"


def is_plain(name):
    """Whether a file's name stays below its directory."""
    parts = name.split("/")
    return name.isprintable() and "\\" not in name and not {"", ".", ".."} & set(parts) and len(name) < 1000


def chosen(names):
    """The files that an engine reads of all that a model has."""
    def has(name, endings):
        return name.endswith(endings) and not os.path.basename(name).startswith(TRAINING)

    names = [name for name in names if not name.startswith(("original/", "metal/"))]
    weights = next((kind for kind in WEIGHTS if any(has(name, kind) for name in names)), None)
    if weights is None:
        return None
    skipped = tuple(ending for kind in WEIGHTS if kind != weights for ending in kind) + OTHER
    skipped += tuple(ending + ".index.json" for ending in skipped)
    return [name for name in names if has(name, weights) or not name.endswith(skipped + weights)]


class File:
    """A file of the model, and where it stands."""

    def __init__(self, sibling, folder, commit):
        lfs = sibling.lfs or {}
        fact = (lambda key: lfs.get(key)) if isinstance(lfs, dict) else (lambda key: getattr(lfs, key, None))
        self.name, self.sha256, self.blob_id = sibling.rfilename, fact("sha256"), sibling.blob_id
        self.size = fact("size") or sibling.size or 0
        self.blob = self.sha256 or self.blob_id
        self.blobs = os.path.join(folder, "blobs")
        self.pointer = os.path.join(folder, "snapshots", commit, *self.name.split("/"))

    def is_there(self):
        try:
            return os.path.getsize(self.pointer) == self.size
        except OSError:
            return False

    def part(self, blob=None):
        return os.path.join(self.blobs, f"{blob or self.blob}.tidegate.incomplete")

    def bytes_there(self, parts):
        if self.is_there():
            return self.size
        for name in (self.blob, *parts.get(self.blob, ())):
            try:
                facts = os.stat(os.path.join(self.blobs, name))
                return min(facts.st_size, facts.st_blocks * 512, self.size) if name != self.blob else self.size
            except OSError:
                pass
        return 0


def parts_in(blobs):
    """The parts of files that are being written, by the file that each becomes."""
    found = {}
    try:
        names = os.listdir(blobs)
    except OSError:
        return found
    for name in names:
        if name.endswith(".incomplete"):
            found.setdefault(name.split(".", 1)[0], []).append(name)
    return found


class Sum(threading.Thread):
    """The checksum of a file, a little behind who writes it."""

    def __init__(self, path, length):
        super().__init__(daemon=True)
        self.path, self.length, self.ended = path, length, False
        self.news, self.began = threading.Condition(), 0
        self.start()

    def tell(self, length=None, ended=False, anew=False):
        with self.news:
            self.began += anew
            self.length, self.ended = self.length if length is None else length, ended
            self.news.notify()

    def run(self):
        self.sum, at, began = hashlib.sha256(), 0, 0
        with open(self.path, "rb", buffering=0) as file:
            while True:
                with self.news:
                    self.news.wait_for(lambda: self.ended or self.length > at or self.began != began)
                    if self.began != began:
                        self.sum, at, began = hashlib.sha256(), 0, self.began
                        file.seek(0)
                    limit, ended = self.length, self.ended
                piece = file.read(min(limit - at, 4 << 20)) if limit > at else b""
                self.sum.update(piece)
                at += len(piece)
                if ended and at >= limit:
                    return

    def result(self):
        self.tell(ended=True)
        self.join()
        return self.sum.hexdigest()


class Part:
    """A file while it is written: never more than it should have."""

    def __init__(self, file, size, summed):
        self.file, self.size, self.summed = file, size, summed

    def __getattr__(self, name):
        return getattr(self.file, name)

    def write(self, data):
        rest = memoryview(data)
        if self.file.tell() + len(rest) > self.size:
            raise Wrong("size", f"more than the {self.size} bytes that the hub states are sent")
        while rest:
            rest = rest[self.file.write(rest):]
        self.summed.tell(self.file.tell())
        return len(data)

    def truncate(self, *size):
        done = self.file.truncate(*size)
        self.summed.tell(self.file.tell(), anew=True)
        return done


def fetch_large(file, commit):
    """Puts a large file into its place among the blobs, in parts if need be."""
    url = hf_hub_url(wanted["name"], file.name, revision=commit)
    facts = again(lambda: get_hf_file_metadata(url), file.name)
    knows_xet = getattr(file_download, "is_xet_available", lambda: False)
    if getattr(facts, "xet_file_data", None) is not None and knows_xet():
        return  # Xet keeps and checks pieces of its own.
    if facts.etag is None or not is_plain(facts.etag) or "/" in facts.etag:
        raise Wrong("no-answer", "the hub states no checksum of it")
    if facts.size is not None and facts.size != file.size:
        raise Wrong("size", f"the hub states {file.size} bytes in its list and {facts.size} where it is")
    place, part = os.path.join(file.blobs, facts.etag), file.part(facts.etag)
    if os.path.exists(place):
        return
    os.makedirs(file.blobs, exist_ok=True)
    headers = build_hf_headers()
    location = facts.location or url
    if urlsplit(location).netloc != urlsplit(url).netloc:
        headers.pop("authorization", None)

    def get():
        with open(part, "ab", buffering=0) as out:
            if out.tell() > file.size:
                out.truncate(0)
            summed = Sum(part, out.tell())
            try:
                file_download.http_get(location, Part(out, file.size, summed), resume_size=out.tell(),
                                       headers=headers, expected_size=file.size)
            except OSError as error:
                if "Consistency check failed" in str(error):
                    raise Short(str(error)) from error
                raise
            finally:
                total = summed.result()
            if out.tell() != file.size:
                raise Short(f"{out.tell()} of {file.size} bytes came")
            os.fsync(out.fileno())
        return total

    try:
        total = again(get, file.name)
    except Wrong:
        os.unlink(part)
        raise
    if file.sha256 and total != file.sha256:
        os.unlink(part)
        raise Wrong("checksum", f"its SHA-256 is {total}, and the hub states {file.sha256}")
    os.chmod(part, 0o666 & ~MASK)
    os.replace(part, place)


def fetch(file, commit):
    """Brings one file to where engines look for it."""
    try:
        if file.is_there():
            return
        place = os.path.join(file.blobs, file.blob or "-")
        # What others left is theirs: we take nothing away that is not of our own making.
        for path in (file.pointer, place):
            if os.path.exists(path) and os.path.getsize(path) != file.size:
                raise Wrong("cached", f"{path} has {os.path.getsize(path)} bytes instead of {file.size}")
        if file.sha256:
            fetch_large(file, commit)
        was_there = os.path.exists(place)
        again(lambda: hf_hub_download(wanted["name"], file.name, revision=commit), file.name)
        wrong = None
        if not file.is_there():
            wrong = "size", f"{os.path.getsize(file.pointer)} bytes came, and the hub states {file.size}"
        elif not file.sha256 and file.blob_id and not was_there:
            with open(file.pointer, "rb") as text:
                data = text.read()
            if hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest() != file.blob_id:
                wrong = "checksum", f"its checksum is not {file.blob_id}, as the hub states"
        if wrong:
            if not was_there:
                real = os.path.realpath(file.pointer)
                os.unlink(file.pointer)
                if os.path.exists(real):
                    os.unlink(real)
            raise Wrong(*wrong)
    except Exception as error:
        error.file = file.name
        raise


def watch(files, ended):
    """Tells how far it is."""
    while not ended.wait(0.5):
        parts = parts_in(files[0].blobs)
        say(event="progress", done=sum(file.bytes_there(parts) for file in files))


def keep_ref(folder, revision, commit):
    if revision == commit:
        return
    path = os.path.join(folder, "refs", *revision.split("/"))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    fresh = f"{path}.tidegate"
    with open(fresh, "w") as out:
        out.write(commit)
    os.replace(fresh, path)


def piece(name, commit, first, count):
    """Some bytes of a file, and no more of it, whatever the hub sends."""
    from huggingface_hub.utils import get_session, hf_raise_for_status

    headers = {**build_hf_headers(), "range": f"bytes={first}-{first + count - 1}", "accept-encoding": "identity"}
    session, url, found = get_session(), hf_hub_url(wanted["name"], name, revision=commit), bytearray()
    if callable(getattr(session, "stream", None)):
        opened = session.stream("GET", url, headers=headers, follow_redirects=True, timeout=20)
    else:
        opened = session.get(url, headers=headers, stream=True, timeout=20)
    with opened as sent:
        if sent.status_code >= 400:
            if hasattr(sent, "read"):
                sent.read()
            hf_raise_for_status(sent)
        if sent.status_code != 206 and first:
            raise Wrong("no-answer", "it sends a whole file where a part of it is asked for", name)
        for data in sent.iter_bytes() if hasattr(sent, "iter_bytes") else sent.iter_content(1 << 16):
            found += data
            if len(found) >= count:
                break
    return bytes(found[:count])


def look(files, commit):
    """Says what form the model has, by its config and the heads of its weights."""
    sizes = {file.rfilename: (file.size or getattr(file.lfs, "size", None) or 0) for file in files}

    def whole(name):
        if sizes.get(name) is None or sizes[name] > SMALL:
            raise Wrong("no-answer", f"there is no {name} of a size that a model has", name)
        return again(lambda: piece(name, commit, 0, SMALL), name)

    say(event="config", text=whole("config.json").decode())
    total, index = None, "model.safetensors.index.json"
    if index in sizes:
        try:
            listed = json.loads(whole(index))
            names = sorted(set(listed["weight_map"].values()))
            total = (listed.get("metadata") or {}).get("total_size")
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise Wrong("no-answer", "it is no index of weights", index) from error
    else:
        names = [name for name in sizes if name.endswith(".safetensors") and "/" not in name]
        names = [name for name in names if not name.startswith("consolidated")] or names
    strange = next((name for name in names if name not in sizes), None)
    if strange is not None:
        raise Wrong("path", repr(strange)[:200])
    if not 0 < len(names) <= HEADS:
        raise Wrong("no-weights", f"{len(names)} files of safetensors")

    def head(name):
        data = again(lambda: piece(name, commit, 0, FIRST), name)
        length = int.from_bytes(data[:8], "little")
        if len(data) < 8 or length > HEAD:
            raise Wrong("no-answer", "it has no head as safetensors has", name)
        if len(data) < 8 + length:
            first = len(data)
            data += again(lambda: piece(name, commit, first, 8 + length - first), name)
        say(event="head", file=name, size=sizes[name], text=data[8:8 + length].decode())

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for work in [pool.submit(head, name) for name in names]:
            work.result()
    say(event="looked", total=total if isinstance(total, int) and total >= 0 else None)


def main():
    api, name = HfApi(), wanted["name"]
    revision = wanted["revision"] or constants.DEFAULT_REVISION
    info = again(lambda: api.model_info(name, revision=revision, files_metadata=True))
    commit = info.sha or ""
    if len(commit) != 40 or not all(c in "0123456789abcdef" for c in commit):
        raise Wrong("no-answer", f"it states the commit {commit!r}")
    names = [sibling.rfilename for sibling in info.siblings or []]
    strange = next((name for name in names if not is_plain(name)), None)
    if strange is not None:
        raise Wrong("path", repr(strange)[:200])
    if wanted.get("look"):
        return look(info.siblings, commit)
    kept = chosen(names)
    if kept is None:
        raise Wrong("no-weights", ", ".join(sorted(names)[:8]))
    folder = os.path.join(constants.HF_HUB_CACHE, "models--" + name.replace("/", "--"))
    files = [File(sibling, folder, commit) for sibling in info.siblings if sibling.rfilename in set(kept)]
    if any(not (0 <= file.size < 1 << 53) or (file.blob and not is_plain(file.blob)) for file in files):
        raise Wrong("no-answer", "it states no sizes")
    parts = parts_in(os.path.join(folder, "blobs"))
    say(event="plan", commit=commit, revision=revision, folder=folder, cache=constants.HF_HUB_CACHE, files=[
        {"name": file.name, "size": file.size, "blob": file.blob, "there": file.bytes_there(parts),
         "whole": file.is_there()} for file in files])
    if sys.stdin.readline().strip() != "go":
        os._exit(3)
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(3)), daemon=True).start()
    ended = threading.Event()
    threading.Thread(target=watch, args=(files, ended), daemon=True).start()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        # The small ones first: what is wrong with the model shows early.
        works = [pool.submit(fetch, file, commit) for file in sorted(files, key=lambda file: file.size)]
        try:
            for work in works:
                work.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    ended.set()
    keep_ref(folder, revision, commit)
    say(event="done", snapshot=os.path.join(folder, "snapshots", commit))


MASK = os.umask(0)
os.umask(MASK)
try:
    main()
except BaseException as error:
    fail(kind_of(error), error, getattr(error, "file", "") or "")
os._exit(0)
