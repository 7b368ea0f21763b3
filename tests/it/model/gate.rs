//! What stands between a process and the world: a process that is frozen, or cut off, gets no answers until it thaws, and
//! what it had asked for happens then.

use std::sync::Arc;

use tallymark::worker::told::Teller;

/// A process's way out. Cheap to clone; all clones are the same gate.
#[derive(Clone, Debug)]
pub struct Gate(Arc<Teller<bool>>);

impl Gate {
    pub fn new() -> Self {
        Self(Arc::new(Teller::new(false)))
    }

    pub fn freeze(&self) {
        self.0.tell(true);
    }

    pub fn thaw(&self) {
        self.0.tell(false);
    }

    pub fn is_frozen(&self) -> bool {
        self.0.now()
    }

    /// Waits while the process is frozen.
    pub async fn pass(&self) {
        let mut frozen = self.0.listen();
        while frozen.look() {
            frozen.changed().await;
        }
    }
}
