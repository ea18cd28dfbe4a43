//! The state of this process, and its end when the process forks or ends.

use ouroboros_client::Client;
use ouroboros_client::c::PerProcess;
use ouroboros_shm::endpoint::note_fork;

use crate::set::Registry;
use crate::table::{self, Table};

/// The state of a process.
pub struct Process {
    pub client: Client,
    pub table: Table,
    pub sets: Registry,
}

static PROCESS: PerProcess<Process> = PerProcess::new(make, after_fork);

fn make() -> Process {
    Process { client: Client::new(), table: Table::new(), sets: Registry::default() }
}

/// The state of this process.
pub fn process() -> &'static Process {
    PROCESS.get()
}

/// Called when the process ends, after what the program registered with `atexit`.
#[used]
#[unsafe(link_section = ".fini_array")]
static AT_EXIT: extern "C" fn() = say_goodbye;

/// Peers are told, which they could not be if the process just vanished.
extern "C" fn say_goodbye() {
    for flow in PROCESS.known().map(|process| process.table.flows()).unwrap_or_default() {
        flow.endpoint.close();
    }
}

/// In the child of a fork: flows stay the parent's.
unsafe extern "C" fn after_fork() {
    note_fork();
    PROCESS.leave(|let_go| table::leave_to_parent(let_go));
}
