"""Live things that rewards need: interpreters, databases, servers, folders, the code sandbox.

A reward that names `context` acquires them from a `Context`; see `docs/resources.md`.
"""

from guerdon.resources.context import Context
from guerdon.resources.database import Database, Rows, SqliteSpec
from guerdon.resources.endpoint import Endpoint, EndpointSpec
from guerdon.resources.engine import (
    PoolStatus,
    Resources,
    close_process_resources,
    process_resources,
)
from guerdon.resources.folder import Folder, FolderSpec
from guerdon.resources.lease import Released
from guerdon.resources.program import Phase, Program, Run
from guerdon.resources.python_session import Execution, PythonSession, PythonSpec
from guerdon.resources.resource import Resource
from guerdon.resources.sandbox_fusion import SandboxFusion, SandboxFusionSpec
from guerdon.resources.server import Server, ServerSpec
from guerdon.resources.shelf import Batch
from guerdon.resources.spec import Pool, Spec
from guerdon.resources.workspace import Workspace, WorkspaceSpec

__all__ = [
    "Batch",
    "Context",
    "Database",
    "Endpoint",
    "EndpointSpec",
    "Execution",
    "Folder",
    "FolderSpec",
    "Phase",
    "Pool",
    "PoolStatus",
    "Program",
    "PythonSession",
    "PythonSpec",
    "Released",
    "Resource",
    "Resources",
    "Rows",
    "Run",
    "SandboxFusion",
    "SandboxFusionSpec",
    "Server",
    "ServerSpec",
    "Spec",
    "SqliteSpec",
    "Workspace",
    "WorkspaceSpec",
    "close_process_resources",
    "process_resources",
]
