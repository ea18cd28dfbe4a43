//! An end of a flow, for a program in any language: flags, time limits, partial reads, encryption (`flows.md` 6). The
//! faces for Python and C, `rust/python` and `rust/capi/dev`, add how a call waits and what its errors are called.
//!
//! Read bottom to top: `limit` (how long a call may take), `guard` (encryption), `properties` (what a program has set).

#![forbid(unsafe_code)]

mod guard;
mod limit;
mod properties;

pub use guard::{guard, session};
pub use limit::{Limit, Timeout};
pub use properties::{Properties, Unfit, stage};
