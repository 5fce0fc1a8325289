"""Headrace: the real-time context engine for language models.

    import headrace as hr

Declare an app: streams and their feature views, tables and their collections. Open it, push events and documents; read
features and search documents that are right at that moment.
"""

from headrace.app import App as App
from headrace.app import Clock as Clock
from headrace.app import Stream as Stream
from headrace.assembly.pack import Pack as Pack
from headrace.declarations import Collection as Collection
from headrace.declarations import Context as Context
from headrace.declarations import Memory as Memory
from headrace.declarations import Table as Table
from headrace.document import Document as Document
from headrace.documents.chunk import chunk as chunk
from headrace.documents.clean import clean as clean
from headrace.enrich.spec import Llm as Llm
from headrace.enrich.spec import llm as llm
from headrace.errors import ClosedError as ClosedError
from headrace.errors import ConfigError as ConfigError
from headrace.errors import DecodeError as DecodeError
from headrace.errors import HeadraceError as HeadraceError
from headrace.errors import InputError as InputError
from headrace.errors import LockedError as LockedError
from headrace.errors import MissingDependencyError as MissingDependencyError
from headrace.errors import RemoteError as RemoteError
from headrace.errors import SchemaError as SchemaError
from headrace.errors import StaleError as StaleError
from headrace.errors import StorageError as StorageError
from headrace.errors import TooLargeError as TooLargeError
from headrace.errors import UnknownNameError as UnknownNameError
from headrace.features.spec import Feature as Feature
from headrace.features.spec import count as count
from headrace.features.spec import distinct as distinct
from headrace.features.spec import first as first
from headrace.features.spec import histogram as histogram
from headrace.features.spec import last as last
from headrace.features.spec import latest as latest
from headrace.features.spec import max as max
from headrace.features.spec import mean as mean
from headrace.features.spec import min as min
from headrace.features.spec import quantile as quantile
from headrace.features.spec import rate as rate
from headrace.features.spec import std as std
from headrace.features.spec import sum as sum
from headrace.features.spec import top as top
from headrace.features.view import View as View
from headrace.files import File as File
from headrace.files import Page as Page
from headrace.parts import section as section
from headrace.parts import text as text
from headrace.registry import register as register
from headrace.runners.library.hits import Hit as Hit
from headrace.runners.library.memory_turns import Recalled as Recalled
from headrace.runners.library.memory_turns import Turn as Turn
from headrace.schema import Event as Event
from headrace.schema import Reject as Reject
from headrace.schema import event_time as event_time
from headrace.serving.client import AsyncRemote as AsyncRemote
from headrace.serving.client import Remote as Remote
from headrace.serving.client import connect as connect
from headrace.serving.client import connect_async as connect_async
from headrace.serving.client_answers import ChatAnswer as ChatAnswer
from headrace.serving.client_answers import ChatChunk as ChatChunk
from headrace.serving.client_answers import Citation as Citation
from headrace.serving.client_answers import ToolRun as ToolRun
from headrace.serving.live import Live as Live
from headrace.serving.rows import Row as Row
from headrace.serving.token import Token as Token
from headrace.upstream.spec import Upstream as Upstream

__version__ = "0.1.0"
