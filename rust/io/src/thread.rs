//! A thread of the node, and the news of its end.
//!
//! A body that panics has failed. Nothing of its state is used after that: what it owned is dropped while it unwinds, by which
//! the flows in it end as died; `abandon` does the same to what others can reach, too. Then whoever looks after the thread is
//! told, by a descriptor. So no thread of the node dies in silence, and no packet goes through half a state.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any, set_hook, take_hook};
use std::sync::{Arc, Once, OnceLock};
use std::thread::{Builder, JoinHandle};

use rustix::io::write;

/// The text of a panic that a test asked for.
pub(crate) const PROVOKED: &str = "provoked by a test";

thread_local! {
    /// A thread whose panics are told by `Thread::failure`, and are not printed.
    static OURS: Cell<bool> = const { Cell::new(false) };
    /// Where the last panic was.
    static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// A thread that runs or has ended.
#[derive(Debug)]
pub struct Thread {
    handle: Option<JoinHandle<()>>,
    fate: Arc<Fate>,
}

#[derive(Debug)]
struct Fate {
    failure: OnceLock<String>,
    news: Option<Arc<OwnedFd>>,
}

impl Thread {
    /// Run `body` until it returns. If it panics, `abandon` is called, and then `news` becomes readable, if somebody watches.
    pub(crate) fn start(
        name: &str,
        news: Option<Arc<OwnedFd>>,
        body: impl FnOnce() + Send + 'static,
        abandon: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        static HOOK: Once = Once::new();
        HOOK.call_once(note_places);
        let fate = Arc::new(Fate { failure: OnceLock::new(), news });
        let told = Arc::clone(&fate);
        let handle = Builder::new().name(name.into()).spawn(move || {
            OURS.set(true);
            let Err(reason) = catch(body) else { return };
            // A panic in there leaves some flows to those who drop them. There is nothing left to try, and the first one tells.
            let _ = catch(abandon);
            told.fail(reason);
        })?;
        Ok(Thread { handle: Some(handle), fate })
    }

    /// Why it ended against its will, if it did.
    pub fn failure(&self) -> Option<&str> {
        self.fate.failure.get().map(String::as_str)
    }

    /// It does nothing any more.
    pub(crate) fn has_ended(&self) -> bool {
        self.handle.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Wait for its end, after `stop` has told it to.
    pub(crate) fn end(&mut self, stop: impl FnOnce()) {
        if let Some(handle) = self.handle.take() {
            stop();
            // Its panics are caught inside, and told by `failure`.
            let _ = handle.join();
        }
    }
}

impl Fate {
    fn fail(&self, reason: String) {
        let _ = self.failure.set(reason);
        if let Some(news) = &self.news {
            // An eventfd takes a 1 unless it is full, and then it is readable anyway.
            let _ = write(news, &1u64.to_ne_bytes());
        }
    }
}

/// End the calling body as failed: after this error it can do nothing more.
#[allow(clippy::panic, reason = "the one way in which a thread ends against its will")]
#[track_caller]
pub(crate) fn give_up(what: impl Display) -> ! {
    panic_any(what.to_string())
}

fn catch(body: impl FnOnce()) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(body)).map_err(|payload| {
        let place = PLACE.take();
        format!("{} ({place})", text_of(&*payload))
    })
}

fn text_of(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("panic without a text")
}

fn note_places() {
    let others = take_hook();
    set_hook(Box::new(move |info| {
        if OURS.get() {
            PLACE.set(info.location().map(|place| format!("{}:{}", place.file(), place.line())).unwrap_or_default());
        } else {
            others(info);
        }
    }));
}
