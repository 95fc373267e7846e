//! The schedule of refreshes, and the records of tenants.

use super::super::schedule::Schedule;
use super::super::users::LastUsers;
use super::*;
use crate::policy::Subject;

#[tokio::test(start_paused = true)]
async fn permits_that_are_due_at_the_same_time_are_each_taken_once_and_none_too_early() {
    let (mut schedule, at) = (Schedule::new(), Instant::now() + Duration::from_secs(60));
    let permits = permits(1000, 0);
    for permit in permits.iter().chain(&permits) {
        schedule.put(permit, at);
    }
    assert_eq!(schedule.next(), Some(at));
    assert!(schedule.take_due(at - Duration::from_nanos(1)).is_none());
    let mut taken = Vec::new();
    while let Some(permit) = schedule.take_due(at + Duration::from_secs(1)) {
        assert!(!schedule.contains(&permit));
        taken.push(permit.tenant().name.clone());
    }
    taken.sort();
    taken.dedup();
    assert_eq!(taken.len(), permits.len());
    assert_eq!(schedule.next(), None);
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_user_keeps_the_other_one_and_no_other_tenant_changes() {
    let (users, permits, now) = (LastUsers::default(), permits(2, 0), Instant::now());
    let second = Permit::of_subject(&permits[0], Subject::parse("second@acme.example").unwrap());
    for permit in [&permits[0], &second, &permits[1]] {
        users.granted(permit, now);
    }
    let other = |of: &Permit| users.other_than(of).map(|user| user.permit);
    assert_eq!(
        (other(&second), other(&permits[0])),
        (Some(permits[0].clone()), Some(second.clone()))
    );
    users.forget(&second);
    assert_eq!((other(&second), other(&permits[0])), (Some(permits[0].clone()), None));
    users.forget(&permits[0]);
    assert!(other(&second).is_none() && users.asking(&permits[0]).is_none());
    assert!(users.asking(&permits[1]).is_some());
}
