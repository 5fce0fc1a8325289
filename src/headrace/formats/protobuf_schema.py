"""A .proto file's text, and those that it imports, compiled to descriptors.

The compiler is protoc, as grpcio-tools brings it, in a process of its own: it reads text that someone else wrote, and
its complaints become the reason. It sees a folder with the given files and the well-known types, and nothing else.

Some producers (Confluent's in Python among them) register a file compiled already, as a descriptor in base64; some
registries give it back so. protoc takes these beside text.
"""

from __future__ import annotations

import base64
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError

from headrace.formats.verdicts import shorten
from headrace.formats.wire import UnusableError

if find_spec("grpc_tools") is None:
    raise ModuleNotFoundError("No module named 'grpc_tools'", name="grpc_tools")

_PATIENCE = 60.0
# Files that Confluent's registries know without being given them, in their own words as far as messages need them.
_KNOWN = {
    "confluent/type/decimal.proto": """syntax = "proto3";
package confluent.type;
message Decimal { bytes value = 1; uint32 precision = 2; int32 scale = 3; }
""",
    "confluent/meta.proto": """syntax = "proto3";
package confluent;
import "google/protobuf/descriptor.proto";
message Meta { string doc = 1; map<string, string> params = 2; repeated string tags = 3; }
extend google.protobuf.FileOptions { Meta file_meta = 1088; }
extend google.protobuf.MessageOptions { Meta message_meta = 1088; }
extend google.protobuf.FieldOptions { Meta field_meta = 1088; }
extend google.protobuf.EnumOptions { Meta enum_meta = 1088; }
extend google.protobuf.EnumValueOptions { Meta enum_value_meta = 1088; }
""",
    "google/type/date.proto": """syntax = "proto3";
package google.type;
message Date { int32 year = 1; int32 month = 2; int32 day = 3; }
""",
    "google/type/timeofday.proto": """syntax = "proto3";
package google.type;
message TimeOfDay { int32 hours = 1; int32 minutes = 2; int32 seconds = 3; int32 nanos = 4; }
""",
}


class ProtoFile:
    """A compiled .proto file.

    Args:
        text: Its text.
        imports: The texts of the files that it imports, by the names that it imports them by.
        folder: Where others that it imports may lie.

    Raises:
        UnusableError: protoc refuses it.
    """

    def __init__(self, text: str, imports: Mapping[str, str], folder: Path | None = None) -> None:
        name = "schema.proto"
        while name in imports:
            name = f"_{name}"
        files = _compile(name, {**_KNOWN, **imports, name: text}, folder)
        self._pool = DescriptorPool()
        try:
            for file in files.file:  # in the order of their imports
                self._pool.Add(file)
        except TypeError as error:  # protoc lets pass what the runtime does not
            raise UnusableError(f"expected a .proto whose types can be used: {shorten(str(error), 240)}") from None
        self._file = files.file[-1]
        self._package = f"{self._file.package}." if self._file.package else ""

    def at(self, indexes: Sequence[int]) -> Descriptor:
        """The message type at these places: of the file's types, of those inside it, and so on.

        Raises:
            UnusableError: There is none.
        """
        name, among = self._package, list(self._file.message_type)
        for depth, index in enumerate(indexes):
            if not 0 <= index < len(among):
                raise UnusableError(f"expected one of its {len(among)} message types, found the number {index}")
            name += ("." if depth else "") + among[index].name
            among = list(among[index].nested_type)
        return self._pool.FindMessageTypeByName(name)

    def named(self, name: str | None) -> Descriptor:
        """The message type of that name, with or without its package; for None, the only one.

        Raises:
            UnusableError: There is none, or there are several.
        """
        names = list(_names(self._file.message_type, ""))
        if name is None and len(self._file.message_type) == 1:
            return self.at([0])
        chosen = (name or "").removeprefix(self._package)
        if chosen not in names:
            found = f"message={name}" if name else f"{len(self._file.message_type)} of them"
            raise UnusableError(f"expected message= with one of the message types {', '.join(names)}, found {found}")
        return self._pool.FindMessageTypeByName(self._package + chosen)


def _names(messages: Iterable[DescriptorProto], outer: str) -> Iterable[str]:
    for message in messages:
        yield outer + message.name
        yield from _names(message.nested_type, f"{outer}{message.name}.")


def _compile(name: str, texts: Mapping[str, str], beside: Path | None) -> FileDescriptorSet:
    with tempfile.TemporaryDirectory(prefix="headrace-proto-") as folder:
        root, out, compiled = Path(folder, "in"), Path(folder, "out"), Path(folder, "compiled")
        ready = {each: descriptor for each, text in texts.items() if (descriptor := _descriptor(each, text))}
        compiled.write_bytes(FileDescriptorSet(file=ready.values()).SerializeToString())
        root.mkdir()
        for each, text in texts.items():
            path = root / _inside(each)
            if each in ready:
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        seen = [root, *([beside.resolve()] if beside else []), _well_known()]
        command = [sys.executable, "-m", "grpc_tools.protoc", *(f"-I{each}" for each in seen), "--include_imports"]
        try:
            done = subprocess.run(
                [*command, f"--descriptor_set_in={compiled}", f"--descriptor_set_out={out}", name],
                cwd=root,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_PATIENCE,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise UnusableError(
                f"expected a .proto that compiles, protoc did not end within {_PATIENCE:.0f} s"
            ) from None
        if done.returncode:
            said = "; ".join(line for line in done.stderr.splitlines() if "warning:" not in line)
            raise UnusableError(f"expected a .proto that compiles, protoc says: {shorten(said, 240)}")
        return FileDescriptorSet.FromString(out.read_bytes())


def _descriptor(name: str, text: str) -> FileDescriptorProto | None:
    """A file that is compiled already; None if it is text, which no base64 is."""
    try:
        found = FileDescriptorProto.FromString(base64.b64decode(text.strip(), validate=True))
    except (ValueError, DecodeError):
        return None
    found.name = name
    return found


def _inside(name: str) -> str:
    """A file's name, which must not lead out of the folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or not path.name:
        raise UnusableError(f"expected an import such as 'shop/money.proto', found {name!r}")
    return name


def _well_known() -> Path:
    spec = find_spec("grpc_tools")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "_proto"
