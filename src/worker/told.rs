//! One value that is told to many, who wake in the order in which they began to wait.
//!
//! `tokio::sync::watch` is the same but for the order, which it draws by chance: then no schedule of several lanes could be
//! repeated.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

#[derive(Debug)]
struct Shared<T> {
    /// The value, and how often it was told.
    value: Mutex<(T, u64)>,
    told: Notify,
}

/// Who tells.
#[derive(Debug)]
pub struct Teller<T>(Arc<Shared<T>>);

/// Who listens.
#[derive(Clone, Debug)]
pub struct Told<T> {
    shared: Arc<Shared<T>>,
    /// How often it had been told when it was looked at last.
    seen: u64,
}

impl<T: Copy> Shared<T> {
    fn get(&self) -> (T, u64) {
        *self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Copy> Teller<T> {
    /// Tells this to whoever listens.
    pub fn new(value: T) -> Self {
        Self(Arc::new(Shared { value: Mutex::new((value, 0)), told: Notify::new() }))
    }

    /// Tells another value.
    pub fn tell(&self, value: T) {
        {
            let mut there = self.0.value.lock().unwrap_or_else(PoisonError::into_inner);
            *there = (value, there.1 + 1);
        }
        self.0.told.notify_waiters();
    }

    /// What is told now.
    pub fn now(&self) -> T {
        self.0.get().0
    }

    /// A listener to whom what is told now is no news.
    pub fn listen(&self) -> Told<T> {
        Told { shared: self.0.clone(), seen: self.0.get().1 }
    }
}

impl<T: Copy> Told<T> {
    /// What is told now.
    pub fn now(&self) -> T {
        self.shared.get().0
    }

    /// The same; it is no news from now on.
    pub fn look(&mut self) -> T {
        let (value, times) = self.shared.get();
        self.seen = times;
        value
    }

    /// Waits until something was told that is news. Cancelling it loses nothing. When nobody tells any more it waits for ever.
    pub async fn changed(&mut self) {
        loop {
            let told = self.shared.told.notified();
            tokio::pin!(told);
            // Enabled before the look, so that what is told between the look and the wait is not missed.
            told.as_mut().enable();
            let (_, times) = self.shared.get();
            if times != self.seen {
                self.seen = times;
                return;
            }
            told.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn all_who_wait_wake_in_the_order_in_which_they_began_to() {
        let (teller, order) = (Teller::new(0), Arc::new(Mutex::new(Vec::new())));
        let mut waiting = Vec::new();
        for number in 0..50 {
            let (mut told, order) = (teller.listen(), order.clone());
            waiting.push(tokio::spawn(async move {
                told.changed().await;
                order.lock().unwrap().push((number, told.now()));
            }));
        }
        tokio::task::yield_now().await;
        teller.tell(7);
        for task in waiting {
            task.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), (0..50).map(|number| (number, 7)).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn what_was_told_meanwhile_is_news_and_what_was_looked_at_is_not() {
        let teller = Teller::new(1);
        let mut told = teller.listen();
        teller.tell(2);
        told.changed().await;
        assert_eq!((told.now(), told.look(), teller.now()), (2, 2, 2));
        teller.tell(3);
        assert_eq!(told.look(), 3);
        let waits = tokio::time::timeout(std::time::Duration::from_millis(1), told.changed()).await;
        assert!(waits.is_err(), "it was looked at");
    }
}
