//! Asks a discovery at its own pace and keeps what it said last, for everybody who looks.
//!
//! A look takes what is known and never waits for more, save for the very first answer. What is
//! known has an age; a question that fails leaves it as it is. The task that asks ends with the last
//! one who looks.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Ask, Listed, REFRESH_MIN};
use crate::{source::excerpt::in_words, telemetry::Telemetry};

/// How often to ask, and how long to believe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Time between two questions.
    pub refresh: Duration,
    /// Time one question may take.
    pub timeout: Duration,
    /// Age from which on an answer says nothing any more.
    pub stale: Duration,
    /// How long the discovery may go on naming an instance that is gone.
    pub settle: Duration,
}

/// What is known.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// What the newest good answer named.
    pub listed: Arc<[Listed]>,
    /// When it was asked for; none before the first one.
    pub asked: Option<Instant>,
    /// Why the newest question failed, when it did.
    pub fault: Option<String>,
    /// Questions that have ended, one way or the other.
    pub questions: u64,
}

/// A discovery, as those see it who look.
#[derive(Debug)]
pub struct Finder {
    about: String,
    pace: Pace,
    known: watch::Receiver<Known>,
    hurry: Arc<Notify>,
    _end: DropGuard,
}

/// A discovery, as the task has it that asks.
pub struct Seeker {
    about: String,
    pace: Pace,
    ask: Box<dyn Ask>,
    known: watch::Sender<Known>,
    hurry: Arc<Notify>,
    end: CancellationToken,
    telemetry: Telemetry,
}

/// Both halves of a discovery; nothing is asked before [`Seeker::run`].
pub fn pair(
    about: String,
    pace: Pace,
    ask: Box<dyn Ask>,
    telemetry: Telemetry,
) -> (Finder, Seeker) {
    let (sender, known) = watch::channel(Known::default());
    let (hurry, end) = (Arc::new(Notify::new()), CancellationToken::new());
    let _end = end.clone().drop_guard();
    let finder = Finder { about: about.clone(), pace, known, hurry: hurry.clone(), _end };
    (finder, Seeker { about, pace, ask, known: sender, hurry, end, telemetry })
}

impl Finder {
    /// For people: `discovery pods`.
    pub fn about(&self) -> &str {
        &self.about
    }

    /// Its pace.
    pub fn pace(&self) -> Pace {
        self.pace
    }

    /// What is known now.
    pub fn known(&self) -> Known {
        self.known.borrow().clone()
    }

    /// What is known now or, before the first answer, soon.
    pub async fn known_within(&self, wait: Duration) -> Known {
        let mut known = self.known.clone();
        let answered = known.wait_for(|known| known.questions > 0);
        // Nothing is known when the time is up or nobody asks any more.
        let _ = timeout(wait, answered).await;
        self.known()
    }

    /// Wishes for an answer sooner than it would come.
    pub fn hurry(&self) {
        self.hurry.notify_one();
    }
}

impl Seeker {
    /// Asks until nobody looks any more, or until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let end = self.end.clone();
        tokio::select! {
            () = end.cancelled() => {}
            () = stop.cancelled() => {}
            () = self.ask_on() => {}
        }
    }

    /// Asks once.
    pub async fn ask_once(&mut self) {
        let begun = Instant::now();
        let found = timeout(self.pace.timeout, self.ask.ask()).await;
        let late = || format!("no answer within {}", in_words(self.pace.timeout));
        self.learn(begun, found.unwrap_or_else(|_| Err(late())));
    }

    async fn ask_on(&mut self) {
        loop {
            let begun = Instant::now();
            self.ask_once().await;
            let (soon, regular) = (begun + REFRESH_MIN, begun + self.pace.refresh);
            tokio::select! {
                () = sleep_until(regular.max(soon)) => {}
                () = self.hurry.notified() => sleep_until(soon).await,
            }
        }
    }

    fn learn(&mut self, asked: Instant, found: Result<Vec<Listed>, String>) {
        let telemetry = &self.telemetry;
        let about = &self.about;
        self.known.send_modify(|known| {
            known.questions += 1;
            match found {
                Ok(listed) => {
                    let is_news = known.asked.is_none()
                        || known.fault.is_some()
                        || known.listed.len() != listed.len();
                    telemetry.discovery_answered(about, listed.len(), is_news);
                    (known.listed, known.asked, known.fault) = (listed.into(), Some(asked), None);
                }
                Err(fault) => {
                    telemetry.discovery_failed(about, &fault, known.fault.as_ref() != Some(&fault));
                    known.fault = Some(fault);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use async_trait::async_trait;

    use super::*;

    /// Counts its questions; every third fails, and every fourth hangs.
    struct Moody(Arc<AtomicU32>);

    #[async_trait]
    impl Ask for Moody {
        async fn ask(&mut self) -> Result<Vec<Listed>, String> {
            let number = self.0.fetch_add(1, Ordering::SeqCst) + 1;
            match number {
                3 => Err("moody".to_owned()),
                4 => std::future::pending().await,
                _ => Ok(Vec::new()),
            }
        }
    }

    #[tokio::test]
    async fn is_hurried_within_reason_and_keeps_the_last_good_answer() {
        let asked = Arc::new(AtomicU32::new(0));
        let pace = Pace {
            refresh: Duration::from_secs(60),
            timeout: Duration::from_millis(200),
            stale: Duration::from_secs(300),
            settle: Duration::ZERO,
        };
        let ask = Box::new(Moody(asked.clone()));
        let (finder, seeker) = pair("discovery x".to_owned(), pace, ask, Telemetry::new());
        let task = tokio::spawn(seeker.run(CancellationToken::new()));
        let begun = Instant::now();
        assert_eq!(finder.known_within(Duration::from_secs(5)).await.questions, 1);
        let mut known = finder.known.clone();
        let mut next = async |questions: u64| {
            finder.hurry();
            finder.hurry();
            known.wait_for(|known| known.questions >= questions).await.expect("it is asked");
            let known = finder.known();
            assert_eq!(known.questions, questions, "not more often than may be");
            assert!(begun.elapsed() >= REFRESH_MIN * (questions as u32 - 1));
            known
        };
        let good = next(2).await.asked;
        let known = next(3).await;
        assert_eq!((known.asked, known.fault.as_deref()), (good, Some("moody")));
        let known = next(4).await;
        assert_eq!(known.fault.as_deref(), Some("no answer within 200 ms"));
        assert_eq!(next(5).await.fault, None);
        drop(finder);
        task.await.expect("it ends with the last one who looks");
    }
}
