"""The same flows over an installed C prototype 0.21 to 0.23, by its libraries `libouroboros-dev` and `libouroboros-irm`.

`ouroboros.backend` says when this is used, `docs/native.md` what differs. Nothing here is imported before it is needed, and
the library is loaded only when its daemon answers: its constructor ends a process that finds none.
"""
