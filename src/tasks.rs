//! Starting what runs beside: tasks, and work that blocks. Boxed, because tokio's own functions are generic: every
//! task and every piece of work would bring its own copy of what drives it, 50 KB of program in all.

use std::any::Any;
use std::io;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::thread::{self, Builder};

use tokio::task::{JoinError, JoinHandle};

/// A future that is a task, whatever its type.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

type Done = Box<dyn Any + Send>;
type Work = Box<dyn FnOnce() -> Done + Send>;

/// A task that is yet to be started.
pub fn task(task: impl Future<Output = ()> + Send + 'static) -> Task {
    Box::pin(task)
}

/// Starts a task.
#[expect(clippy::disallowed_methods, reason = "it is boxed")]
pub fn spawn(future: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(task(future))
}

/// Starts a thread of its own for something; without memory for it an error. Boxed like the others.
pub fn thread(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread_of(Builder::new(), work).map(drop)
}

/// The same with a name, or a stack of another size.
pub fn thread_of(
    builder: Builder,
    work: impl FnOnce() + Send + 'static,
) -> io::Result<thread::JoinHandle<()>> {
    let work: Box<dyn FnOnce() + Send> = Box::new(work);
    builder.spawn(work)
}

/// Starts work that blocks on a thread for such: disks may be slow, and everything else runs on one thread.
/// It goes on when nobody waits for it any more.
#[expect(clippy::disallowed_methods, reason = "it is boxed")]
pub fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Aside<T> {
    let work: Work = Box::new(move || Box::new(work()));
    Aside { work: tokio::task::spawn_blocking(work), result: PhantomData }
}

/// What waits for such work; an error is a panic of it.
pub struct Aside<T> {
    work: JoinHandle<Done>,
    result: PhantomData<fn() -> T>,
}

impl<T: 'static> Future for Aside<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let done = ready!(Pin::new(&mut self.work).poll(context))?;
        Poll::Ready(Ok(*done.downcast().expect("`aside` has boxed a T")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_gives_its_result_and_a_panic_is_an_error() {
        assert_eq!(aside(|| vec![1, 2]).await.unwrap(), [1, 2]);
        assert!(aside::<()>(|| panic!("asked to")).await.unwrap_err().is_panic());
    }
}
