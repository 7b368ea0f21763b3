//! The group of workers: who runs which lane, and what other tools see of it.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use tallymark::{
    item::Seq,
    log::{
        Change, Log, Options,
        kafka::{Kafka, Needs},
    },
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::timeout,
};

use super::{
    partitions,
    support::{TIMEOUT, Topic, needs, until},
};

/// A member that follows its changes, and releases at once.
struct Member {
    log: Kafka,
    changes: mpsc::Receiver<Change>,
    lanes: BTreeSet<u32>,
}

impl Member {
    async fn new(topic: &Topic) -> Self {
        let log = topic.open(&Options::default()).await.unwrap();
        let changes = log.join().await.unwrap();
        Self { log, changes, lanes: BTreeSet::new() }
    }

    /// A member that the group would wait for for long, if it left without a word.
    async fn patient(topic: &Topic) -> Self {
        let needs = Needs { session_timeout: Duration::from_secs(60), ..needs() };
        let log = topic.open_as(&Options::default(), &needs).await.unwrap();
        let changes = log.join().await.unwrap();
        Self { log, changes, lanes: BTreeSet::new() }
    }

    /// The next change, within the deadline; a revocation is not answered.
    async fn change(&mut self) -> Change {
        timeout(TIMEOUT, self.changes.recv()).await.expect("a change comes").expect("the group has not ended")
    }

    fn follow(&mut self, change: Change) {
        match change {
            Change::Assigned(partitions) => self.lanes.extend(partitions),
            Change::Revoked { partitions, released } => {
                self.lanes.retain(|lane| !partitions.contains(lane));
                released.send(()).unwrap();
            }
            Change::Lost(partitions) => self.lanes.retain(|lane| !partitions.contains(lane)),
        }
    }

    async fn until_lanes(&mut self, count: usize) {
        while self.lanes.len() != count {
            let change = self.change().await;
            self.follow(change);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_members_share_the_lanes_and_one_takes_over_when_the_other_leaves() {
    let topic = Topic::new();
    topic.create(&partitions(4)).await.unwrap();
    let mut one = Member::new(&topic).await;
    one.until_lanes(4).await;
    let mut other = Member::new(&topic).await;

    let Change::Revoked { partitions, released } = one.change().await else { panic!("nothing was revoked") };
    assert_eq!(partitions.len(), 2);
    // They stay where they are until they are released: the other one gets nothing before that.
    let early = timeout(Duration::from_secs(2), other.changes.recv()).await;
    assert!(early.is_err(), "{early:?} before the lanes were released");
    one.lanes.retain(|lane| !partitions.contains(lane));
    released.send(()).unwrap();
    other.until_lanes(2).await;
    assert!(one.lanes.is_disjoint(&other.lanes));

    // A member that stops taking its changes has left, and its log lives on.
    let Member { log, changes, .. } = other;
    drop(changes);
    one.until_lanes(4).await;
    log.check().await.unwrap();
    assert!(log.join().await.is_ok(), "it may come back");
}

/// A member that follows its changes on a task of its own, until it is to leave.
struct Followed {
    lanes: watch::Receiver<usize>,
    leave: oneshot::Sender<()>,
    task: JoinHandle<Member>,
}

impl Followed {
    async fn new(topic: &Topic) -> Self {
        let mut member = Member::patient(topic).await;
        let (told, lanes) = watch::channel(0);
        let (leave, mut left) = oneshot::channel();
        let task = tokio::spawn(async move {
            loop {
                tokio::select! {
                    Some(change) = member.changes.recv() => member.follow(change),
                    _ = &mut left => return member,
                }
                told.send_replace(member.lanes.len());
            }
        });
        Self { lanes, leave, task }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_leaves_while_the_group_changes_says_goodbye_all_the_same() {
    let topic = Topic::new();
    topic.create(&partitions(4)).await.unwrap();
    let mut group = VecDeque::new();
    for _ in 0..2 {
        group.push_back(Followed::new(&topic).await);
    }
    for round in 0..6 {
        // Somebody comes, which takes two rounds of joining; somewhere in between the oldest one leaves.
        group.push_back(Followed::new(&topic).await);
        tokio::time::sleep(Duration::from_millis(300 * round)).await;
        let oldest = group.pop_front().expect("there are three");
        oldest.leave.send(()).unwrap();
        let member = oldest.task.await.unwrap();
        tokio::task::spawn_blocking(move || drop(member)).await.unwrap();
        let lanes = async || (group.iter().map(|one| *one.lanes.borrow()).sum::<usize>() == 4).then_some(());
        let left = tokio::time::Instant::now();
        until("its lanes are others'", lanes).await;
        assert!(left.elapsed() < Duration::from_secs(15), "the group waited for {:?}", left.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_goes_back_in_a_lane_that_it_runs() {
    let topic = Topic::new();
    topic.create(&partitions(1)).await.unwrap();
    let mut one = Member::new(&topic).await;
    one.until_lanes(1).await;
    for (round, from) in [0, 7, 3, 40, 0].into_iter().enumerate() {
        for n in 0..10 {
            one.log.append(0, 1, Bytes::from(vec![n])).await.unwrap();
        }
        let mut cursor = one.log.open(0, Seq(from), None).await.unwrap();
        let mut expected = from;
        while expected < 10 * (round as u64 + 1) {
            for record in timeout(TIMEOUT, cursor.next()).await.unwrap().unwrap() {
                assert_eq!((record.seq, &record.payload[..]), (Seq(expected), &[(expected % 10) as u8][..]));
                expected += 1;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_that_stops_early_does_not_answer_for_the_others() {
    let topic = Topic::new();
    topic.create(&partitions(4)).await.unwrap();
    let mut one = Member::new(&topic).await;
    one.until_lanes(4).await;
    let mut cursors = Vec::new();
    for lane in 0..4 {
        one.log.append(lane, 1, Bytes::from_static(b"x")).await.unwrap();
        let mut cursor = one.log.open(lane, Seq(0), None).await.unwrap();
        assert_eq!(timeout(TIMEOUT, cursor.next()).await.unwrap().unwrap().len(), 1);
        cursors.push(cursor);
    }
    let mut other = Member::new(&topic).await;
    let Change::Revoked { partitions, released } = one.change().await else { panic!("nothing was revoked") };
    // One of them is closed; the other one is still at work.
    let (first, second) = (partitions[0], partitions[1]);
    drop(cursors.remove(first as usize));
    let early = timeout(Duration::from_secs(2), other.changes.recv()).await;
    assert!(early.is_err(), "{early:?} while lane {second} was still running");
    drop(cursors);
    released.send(()).unwrap();
    other.until_lanes(2).await;
    assert_eq!(other.lanes, partitions.into_iter().collect());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_dies_without_a_word_is_replaced_when_its_session_is_over() {
    let topic = Topic::new();
    topic.create(&partitions(2)).await.unwrap();
    let mut one = Member::new(&topic).await;
    one.until_lanes(2).await;
    // Dropped, it says goodbye: much sooner than its session is over.
    let began = tokio::time::Instant::now();
    drop(one);
    let mut next = Member::new(&topic).await;
    next.until_lanes(2).await;
    assert!(began.elapsed() < std::time::Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lanes_progress_is_the_groups_committed_offset() {
    let topic = Topic::new();
    topic.create(&partitions(2)).await.unwrap();
    let mut member = Member::new(&topic).await;
    member.until_lanes(2).await;
    for _ in 0..10 {
        member.log.append(1, 1, Bytes::from_static(b"pack")).await.unwrap();
    }
    assert_eq!(topic.committed(1), None);
    let mut cursor = member.log.open(1, Seq(4), None).await.unwrap();
    until("what the lane begins with is committed", async || topic.committed(1).filter(|offset| *offset == 4)).await;
    assert_eq!(timeout(TIMEOUT, cursor.next()).await.unwrap().unwrap()[0].seq, Seq(4));
    for checkpoint in 4..=8 {
        member.log.progress(1, Seq(checkpoint), Seq(0)).await.unwrap();
    }
    until("the checkpoint's next offset is committed", async || topic.committed(1).filter(|offset| *offset == 9)).await;
    assert_eq!(topic.committed(0), None, "a lane that nobody has opened");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_reads_its_lanes_in_order_with_pauses_and_when_they_are_opened_anew() {
    const COUNT: u64 = 3_000;
    let topic = Topic::new();
    topic.create(&partitions(2)).await.unwrap();
    let mut member = Member::new(&topic).await;
    member.until_lanes(2).await;
    let log = std::sync::Arc::new(member.log);
    let writer = {
        let log = log.clone();
        tokio::spawn(async move {
            for n in 0..COUNT {
                for lane in 0..2 {
                    log.append(lane, 1, Bytes::from(vec![0; (n % 7 * 3_000) as usize])).await.unwrap();
                }
            }
        })
    };
    let read = async |lane: u32| {
        let mut expected = 0;
        // Each third batch the cursor is dropped, and opened where it was.
        while expected < COUNT {
            let mut cursor = log.open(lane, Seq(expected), None).await.unwrap();
            for _ in 0..3 {
                if expected >= COUNT {
                    break;
                }
                for record in timeout(TIMEOUT, cursor.next()).await.unwrap().unwrap() {
                    assert_eq!((record.seq, record.payload.len() as u64), (Seq(expected), expected % 7 * 3_000));
                    expected += 1;
                }
            }
        }
    };
    tokio::join!(read(0), read(1));
    writer.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_progress_is_committed_before_a_member_leaves() {
    let topic = Topic::new();
    topic.create(&partitions(1)).await.unwrap();
    let mut member = Member::new(&topic).await;
    member.until_lanes(1).await;
    member.log.append(0, 1, Bytes::from_static(b"pack")).await.unwrap();
    let cursor = member.log.open(0, Seq(0), None).await.unwrap();
    until("the lane has begun", async || topic.committed(0)).await;
    member.log.progress(0, Seq(0), Seq(0)).await.unwrap();
    drop(cursor);
    drop(member);
    until("its last word is there", async || topic.committed(0).filter(|offset| *offset == 1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_the_brokers_refuse_ends_the_membership() {
    let topic = Topic::new();
    topic.create(&partitions(1)).await.unwrap();
    let needs = Needs { session_timeout: std::time::Duration::from_secs(1), ..needs() };
    let log = Kafka::open(&topic.servers(), &Options::default(), &needs).await.unwrap();
    let mut changes = log.join().await.unwrap();
    assert!(timeout(TIMEOUT, changes.recv()).await.expect("it ends").is_none());
}
