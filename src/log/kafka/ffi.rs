//! What librdkafka has and rdkafka's safe interface lacks: a topic's id, the leader epoch of a message and of a
//! position, and whether a client is a member of its group. The only `unsafe` of the program, four small calls; `tests/it/kafka.rs` makes each on a real broker.
//!
//! Everything that is allocated here is freed here, by guards, on every path. No pointer leaves this file.

use std::{ffi::CString, time::Duration};

use rdkafka::{
    TopicPartitionList,
    bindings::{
        rd_kafka_AdminOptions_destroy, rd_kafka_AdminOptions_new, rd_kafka_AdminOptions_set_request_timeout,
        rd_kafka_DescribeTopics, rd_kafka_DescribeTopics_result_topics, rd_kafka_TopicCollection_destroy,
        rd_kafka_TopicCollection_of_topic_names, rd_kafka_TopicDescription_error, rd_kafka_TopicDescription_partitions,
        rd_kafka_TopicDescription_topic_id, rd_kafka_Uuid_least_significant_bits, rd_kafka_Uuid_most_significant_bits,
        rd_kafka_admin_op_t, rd_kafka_error_code, rd_kafka_event_DescribeTopics_result, rd_kafka_event_destroy,
        rd_kafka_event_error, rd_kafka_mem_free, rd_kafka_memberid, rd_kafka_message_leader_epoch,
        rd_kafka_queue_destroy, rd_kafka_queue_new, rd_kafka_queue_poll, rd_kafka_topic_partition_get_leader_epoch,
        rd_kafka_topic_partition_list_find, rd_kafka_topic_partition_set_leader_epoch,
    },
    client::{Client, ClientContext},
    message::BorrowedMessage,
    types::{RDKafkaErrorCode, RDKafkaRespErr},
};

/// What a broker says of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Described {
    /// The id of this life of the topic.
    pub topic_id: [u8; 16],
    /// How many partitions it has now.
    pub partitions: u32,
}

/// Frees a pointer that librdkafka gave, when it goes out of scope.
struct Guard<T>(*mut T, unsafe extern "C" fn(*mut T));

impl<T> Drop for Guard<T> {
    fn drop(&mut self) {
        // SAFETY: a guard is made only of a non-null pointer from the constructor that belongs to its destructor, owns it,
        // and is never copied: it is freed once.
        unsafe { (self.1)(self.0) }
    }
}

/// Asks the cluster for a topic's id and partitions. Blocks, for `timeout` and a little at most.
///
/// # Errors
/// librdkafka's own code: the topic is not there, nobody answers in time, or the answer makes no sense.
pub fn describe<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    timeout: Duration,
) -> Result<Described, RDKafkaErrorCode> {
    let broken = RDKafkaErrorCode::Fail;
    let name = CString::new(topic).map_err(|_| RDKafkaErrorCode::InvalidArgument)?;
    let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX - 1_000);
    let mut names = [name.as_ptr()];
    let mut error_text = [0; 128];
    // SAFETY: the client's handle lives as long as the borrow of `client`, and librdkafka's handles may be used from any
    // thread. `names` holds one valid C string and is copied by the call. What each constructor gives is checked for null
    // before it is used, is guarded until the end of this function, and is given to functions for its own type alone.
    // Should the question time out, the request still refers to the queue, which librdkafka counts: destroying our
    // reference is allowed. The event owns the result, its descriptions and their ids, and is guarded: they are read, and
    // copied, before it is freed. The array of descriptions has `count` elements, and one is read only if there is one.
    unsafe {
        let rk = client.native_ptr();
        let topics = rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
        if topics.is_null() {
            return Err(broken);
        }
        let topics = Guard(topics, rd_kafka_TopicCollection_destroy);
        let options = rd_kafka_AdminOptions_new(rk, rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
        if options.is_null() {
            return Err(broken);
        }
        let options = Guard(options, rd_kafka_AdminOptions_destroy);
        let set =
            rd_kafka_AdminOptions_set_request_timeout(options.0, timeout_ms, error_text.as_mut_ptr(), error_text.len());
        check(set)?;
        let queue = rd_kafka_queue_new(rk);
        if queue.is_null() {
            return Err(broken);
        }
        let queue = Guard(queue, rd_kafka_queue_destroy);
        rd_kafka_DescribeTopics(rk, topics.0, options.0, queue.0);
        let event = rd_kafka_queue_poll(queue.0, timeout_ms.saturating_add(500));
        if event.is_null() {
            return Err(RDKafkaErrorCode::OperationTimedOut);
        }
        let event = Guard(event, rd_kafka_event_destroy);
        check(rd_kafka_event_error(event.0))?;
        let result = rd_kafka_event_DescribeTopics_result(event.0);
        if result.is_null() {
            return Err(broken);
        }
        let mut count = 0;
        let descriptions = rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        if descriptions.is_null() || count == 0 {
            return Err(broken);
        }
        let description = *descriptions;
        let error = rd_kafka_TopicDescription_error(description);
        if !error.is_null() {
            check(rd_kafka_error_code(error))?;
        }
        let id = rd_kafka_TopicDescription_topic_id(description);
        if id.is_null() {
            return Err(broken);
        }
        let (high, low) = (rd_kafka_Uuid_most_significant_bits(id), rd_kafka_Uuid_least_significant_bits(id));
        let mut partitions = 0;
        rd_kafka_TopicDescription_partitions(description, &raw mut partitions);
        let mut topic_id = [0; 16];
        topic_id[..8].copy_from_slice(&high.to_be_bytes());
        topic_id[8..].copy_from_slice(&low.to_be_bytes());
        Ok(Described { topic_id, partitions: u32::try_from(partitions).map_err(|_| broken)? })
    }
}

fn check(code: RDKafkaRespErr) -> Result<(), RDKafkaErrorCode> {
    match RDKafkaErrorCode::from(code) {
        RDKafkaErrorCode::NoError => Ok(()),
        code => Err(code),
    }
}

/// Whether the client has a name in its group: it has one from its first join until it has said goodbye.
pub fn is_member<C: ClientContext>(client: &Client<C>) -> bool {
    // SAFETY: the client's handle lives as long as the borrow of `client`. The answer is null, or a C string that is the caller's: its
    // first byte is read, and it is freed once, by the function that librdkafka names for it.
    unsafe {
        let id = rd_kafka_memberid(client.native_ptr());
        if id.is_null() {
            return false;
        }
        let named = *id != 0;
        rd_kafka_mem_free(client.native_ptr(), id.cast());
        named
    }
}

/// The leader epoch that a message was appended under, where the broker tells it.
pub fn leader_epoch(message: &BorrowedMessage<'_>) -> Option<i32> {
    // SAFETY: the pointer is to the message that `message` keeps alive while it is borrowed, and the call only reads.
    let epoch = unsafe { rd_kafka_message_leader_epoch(message.ptr()) };
    (epoch >= 0).then_some(epoch)
}

/// Gives the position of a partition in the list its leader epoch, so that librdkafka notices a log that was cut.
/// A partition that is not in the list is left alone.
pub fn set_leader_epoch(list: &mut TopicPartitionList, topic: &str, partition: i32, epoch: i32) {
    let Ok(topic) = CString::new(topic) else { return };
    // SAFETY: the list is borrowed mutably, so nobody else reads or changes it; the found element is part of it and is
    // checked for null; the topic's name is a valid C string for the time of the call.
    unsafe {
        let element = rd_kafka_topic_partition_list_find(list.ptr(), topic.as_ptr(), partition);
        if !element.is_null() {
            rd_kafka_topic_partition_set_leader_epoch(element, epoch);
        }
    }
}

/// The leader epoch of a partition's position in the list, if it has one.
pub fn position_leader_epoch(list: &TopicPartitionList, topic: &str, partition: i32) -> Option<i32> {
    let topic = CString::new(topic).ok()?;
    // SAFETY: the list is borrowed, the found element is part of it and is checked for null, and both calls only read.
    let epoch = unsafe {
        let element = rd_kafka_topic_partition_list_find(list.ptr(), topic.as_ptr(), partition);
        if element.is_null() { -1 } else { rd_kafka_topic_partition_get_leader_epoch(element) }
    };
    (epoch >= 0).then_some(epoch)
}
