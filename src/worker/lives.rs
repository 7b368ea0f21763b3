//! Which of the store's servers have started again, and until when none had: what may be believed of acknowledgements.
//!
//! A server acknowledges a row before it is safe on its disk, and forgets it when its power goes. The worker may survive
//! that, so law 5 has the servers asked for their generations, again and again. Here is what the answers mean:
//!
//! - another generation than before: the server has started again, and what was acknowledged since the checkpoint is owed
//!   again;
//! - a first answer that comes later than the first asking: it may have acknowledged, and forgotten, before; the same;
//! - no answer: it may start again unseen, so nothing is sure from now on, until it answers, or has been away for so long
//!   that it is given up: counted as started again, once, and waited for no longer, for one server must not hold the
//!   checkpoints up for ever. When it answers after all, its generation says whether it is to be counted once more;
//! - not named any more: it has left the cluster, and the servers that stay have its rows. One that was away is given up.
//!
//! Pure: time is an argument, in milliseconds of any steady clock.

use std::collections::BTreeMap;

use crate::store::{Generation, Generations};

/// What an asking has brought to light about one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// It has started again.
    Restarted,
    /// It does not answer, for this reason.
    Away(String),
    /// It has been away for too long.
    GivenUp,
    /// It answers again, and has not started again.
    Back,
}

#[derive(Debug, Default)]
struct Server {
    generation: Option<Generation>,
    /// When it was first asked in vain.
    away_since_ms: Option<i64>,
    given_up: bool,
}

/// The servers as they were told of.
#[derive(Debug)]
pub struct Lives {
    patience_ms: i64,
    servers: BTreeMap<String, Server>,
    begun: bool,
    restarts: u64,
    sure_ms: Option<i64>,
}

impl Lives {
    /// A server may be away for so long.
    pub fn new(patience_ms: i64) -> Self {
        Self { patience_ms, servers: BTreeMap::new(), begun: false, restarts: 0, sure_ms: None }
    }

    /// Takes what an asking has told that began at `began_ms`.
    pub fn heard(&mut self, began_ms: i64, answers: Generations) -> Vec<(String, News)> {
        let mut news = Vec::new();
        for (name, server) in &mut self.servers {
            if !answers.contains_key(name) && server.away_since_ms.take().is_some() && !server.given_up {
                server.given_up = true;
                news.push((name.clone(), News::GivenUp));
            }
        }
        let mut sure = true;
        for (name, answer) in answers {
            let server = self.servers.entry(name.clone()).or_default();
            let heard = match answer {
                Ok(generation) => {
                    let was_away = server.away_since_ms.take().is_some() || server.given_up;
                    server.given_up = false;
                    match server.generation.replace(generation) {
                        Some(before) if before == generation => was_away.then_some(News::Back),
                        None if !self.begun => None,
                        _ => Some(News::Restarted),
                    }
                }
                Err(error) => {
                    let first = server.away_since_ms.is_none();
                    let since_ms = *server.away_since_ms.get_or_insert(began_ms);
                    if !server.given_up && began_ms - since_ms >= self.patience_ms {
                        server.given_up = true;
                        Some(News::GivenUp)
                    } else {
                        sure &= server.given_up;
                        first.then(|| News::Away(error.to_string()))
                    }
                }
            };
            news.extend(heard.map(|heard| (name, heard)));
        }
        let restarts = news.iter().filter(|(_, news)| matches!(news, News::Restarted | News::GivenUp)).count();
        self.restarts += restarts as u64;
        if sure {
            self.sure_ms = Some(began_ms);
        }
        self.begun = true;
        news
    }

    /// How often a server has started again, or was given up.
    pub fn restarts(&self) -> u64 {
        self.restarts
    }

    /// When the last asking began that left nobody to wait for: a restart before then is counted.
    pub fn sure_ms(&self) -> Option<i64> {
        self.sure_ms
    }

    /// How many servers do not answer.
    pub fn away(&self) -> usize {
        self.servers.values().filter(|server| server.away_since_ms.is_some()).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{retry::Kind, store::Error};

    fn answers(told: &[(&str, Option<i64>)]) -> Generations {
        let answer = |told: Option<i64>| told.map(Generation).ok_or_else(|| Error::new(Kind::Transient, "away"));
        told.iter().map(|(name, told)| ((*name).to_owned(), answer(*told))).collect()
    }

    fn named(name: &str, news: News) -> (String, News) {
        (name.to_owned(), news)
    }

    fn away() -> News {
        News::Away("away".to_owned())
    }

    #[test]
    fn servers_that_stay_as_they_are_make_every_asking_sure() {
        let mut lives = Lives::new(100);
        assert_eq!(lives.sure_ms(), None);
        for at in [0, 10, 20] {
            assert_eq!(lives.heard(at, answers(&[("a", Some(1)), ("b", Some(7))])), []);
            assert_eq!((lives.sure_ms(), lives.restarts(), lives.away()), (Some(at), 0, 0));
        }
    }

    #[test]
    fn another_generation_counts_whether_it_was_seen_to_be_away_or_not() {
        let mut lives = Lives::new(100);
        lives.heard(0, answers(&[("a", Some(1)), ("b", Some(1))]));
        assert_eq!(lives.heard(10, answers(&[("a", Some(2)), ("b", Some(1))])), [named("a", News::Restarted)]);
        assert_eq!((lives.sure_ms(), lives.restarts()), (Some(10), 1));
        assert_eq!(lives.heard(20, answers(&[("a", Some(2)), ("b", None)])), [named("b", away())]);
        assert_eq!((lives.sure_ms(), lives.restarts(), lives.away()), (Some(10), 1, 1), "nothing is sure meanwhile");
        assert_eq!(lives.heard(30, answers(&[("a", Some(2)), ("b", None)])), [], "told once");
        assert_eq!(lives.heard(40, answers(&[("a", Some(2)), ("b", Some(9))])), [named("b", News::Restarted)]);
        assert_eq!((lives.sure_ms(), lives.restarts(), lives.away()), (Some(40), 2, 0));
    }

    #[test]
    fn a_connection_that_was_lost_alone_is_no_restart() {
        let mut lives = Lives::new(100);
        lives.heard(0, answers(&[("a", Some(1))]));
        lives.heard(10, answers(&[("a", None)]));
        assert_eq!(lives.heard(20, answers(&[("a", Some(1))])), [named("a", News::Back)]);
        assert_eq!((lives.sure_ms(), lives.restarts()), (Some(20), 0));
    }

    #[test]
    fn one_that_stays_away_is_given_up_once_and_counts_again_if_it_had_started_again() {
        for (generation, news, restarts) in [(1, News::Back, 1), (2, News::Restarted, 2)] {
            let mut lives = Lives::new(100);
            lives.heard(0, answers(&[("a", Some(1)), ("b", Some(1))]));
            let gone = || answers(&[("a", None), ("b", Some(1))]);
            assert_eq!(lives.heard(50, gone()), [named("a", away())]);
            assert_eq!(lives.heard(149, gone()), []);
            assert_eq!((lives.sure_ms(), lives.restarts()), (Some(0), 0));
            assert_eq!(lives.heard(150, gone()), [named("a", News::GivenUp)]);
            assert_eq!((lives.sure_ms(), lives.restarts(), lives.away()), (Some(150), 1, 1));
            assert_eq!(lives.heard(400, gone()), []);
            assert_eq!((lives.sure_ms(), lives.restarts()), (Some(400), 1));
            assert_eq!(lives.heard(410, answers(&[("a", Some(generation)), ("b", Some(1))])), [named("a", news)]);
            assert_eq!((lives.sure_ms(), lives.restarts(), lives.away()), (Some(410), restarts, 0));
        }
    }

    #[test]
    fn a_first_answer_counts_when_it_comes_late_and_one_that_left_is_waited_for_no_longer() {
        let mut lives = Lives::new(100);
        assert_eq!(lives.heard(0, answers(&[("a", None), ("b", Some(1))])), [named("a", away())]);
        assert_eq!(lives.sure_ms(), None);
        assert_eq!(lives.heard(10, answers(&[("a", Some(1)), ("b", Some(1))])), [named("a", News::Restarted)]);
        assert_eq!(lives.heard(20, answers(&[("a", Some(1))])), [], "b has left in good order");
        assert_eq!((lives.sure_ms(), lives.restarts()), (Some(20), 1));
        lives.heard(30, answers(&[("a", None), ("c", Some(4))]));
        assert_eq!((lives.sure_ms(), lives.restarts()), (Some(20), 2), "c has joined");
        assert_eq!(lives.heard(40, answers(&[("c", Some(4))])), [named("a", News::GivenUp)]);
        assert_eq!((lives.sure_ms(), lives.restarts(), lives.away()), (Some(40), 3, 0));
        assert_eq!(lives.heard(50, answers(&[("b", Some(2)), ("c", Some(4))])), [named("b", News::Restarted)]);
    }
}
