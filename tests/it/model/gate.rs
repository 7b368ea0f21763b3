//! What stands between a process and the world: a process that is frozen, or cut off, gets no answers until it thaws, and
//! what it had asked for happens then.

use std::sync::Arc;

use tokio::sync::watch;

/// A process's way out. Cheap to clone; all clones are the same gate.
#[derive(Clone, Debug)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Gate {
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    pub fn freeze(&self) {
        self.0.send_replace(true);
    }

    pub fn thaw(&self) {
        self.0.send_replace(false);
    }

    pub fn is_frozen(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits while the process is frozen.
    pub async fn pass(&self) {
        if self.is_frozen() {
            let mut frozen = self.0.subscribe();
            frozen.wait_for(|frozen| !frozen).await.expect("the gate keeps its sender");
        }
    }
}
