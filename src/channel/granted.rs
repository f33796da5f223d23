//! Channels that have an owner: rows of pushy_internal.channel and pushy_internal.channel_acl.

use pushy_core::topic::Patterns;

use crate::errors::Result;
use crate::params;
use crate::pg::home::Home;
use crate::pg::spi::{self, Plan, Row};
use crate::pg::{array, database, home, identity, role_lock, text, transaction, BuiltinOid, Oid};

use BuiltinOid::{INT8OID, OIDOID, TEXTARRAYOID};

#[derive(Clone, Debug)]
pub struct Grant {
    /// OID of a role; 0 is PUBLIC.
    pub grantee: Oid,
    pub grantee_name: String,
    pub privilege: String,
    pub topics: Option<String>,
    /// Where the WAL was: what was written before is not read.
    pub since: i64,
    pub granted_at: i64,
    /// The newest notice of the log then, for gateways; None: it was not noted.
    pub cursor: Option<String>,
}

impl Grant {
    /// Which topics it is for; None: all, and what has none.
    pub fn patterns(&self) -> Option<Patterns> {
        let topics = self.topics.as_deref()?;
        Some(Patterns::read_list(&text::encode_lossy(topics)).unwrap_or(Patterns::NONE))
    }

    pub fn is_to_all(&self) -> bool {
        self.grantee == Oid::INVALID
    }
}

/// A channel that somebody has granted.
#[derive(Clone, Debug)]
pub struct GrantedChannel {
    /// Its exact name, in the database's encoding.
    pub channel: Vec<u8>,
    pub owner: Oid,
    pub owner_name: String,
    pub(super) home_system: i64,
    pub(super) home_database: u32,
    pub grants: Vec<Grant>,
}

macro_rules! select {
    ($which:literal) => {
        concat!(
            "SELECT c.channel, c.owner, c.owner_name::pg_catalog.text, c.home_system, c.home_database, \
                    a.grantee, a.grantee_name::pg_catalog.text, a.privilege, a.topics, a.granted_lsn, a.granted_at, a.granted_cursor \
               FROM pushy_internal.channel c LEFT JOIN pushy_internal.channel_acl a ON a.channel OPERATOR(pg_catalog.=) c.channel \
                    AND a.home_system OPERATOR(pg_catalog.=) c.home_system AND a.home_database OPERATOR(pg_catalog.=) c.home_database ",
            $which,
            " ORDER BY c.channel, a.grantee_name"
        )
    };
}

static ALL: Plan = Plan::new(select!(""), &[]);

static OF: Plan = Plan::new(
    select!("WHERE c.channel OPERATOR(pg_catalog.=) ANY ($1)"),
    &[TEXTARRAYOID],
);

/// All of the database, as of now; as the extension's owner, as all that follow.
pub fn all() -> Result<Vec<GrantedChannel>> {
    load(&ALL, &[])
}

static COUNT_OF: Plan = Plan::new(
    "SELECT pg_catalog.count(*) FROM pushy_internal.channel c WHERE c.owner OPERATOR(pg_catalog.=) $1",
    &[OIDOID],
);

/// How many a role owns, once no other transaction of the role can add one.
pub fn count_of(owner: Oid) -> Result<i64> {
    role_lock::lock(owner)?;
    Ok(transaction::with_latest_snapshot(|| {
        spi::connect(|spi| {
            spi.run_in_active_snapshot(&COUNT_OF, params![owner])
                .row(0)
                .i64(1)
        })
    }))
}

/// More than `most` channels, or grants, or `bytes` of patterns in so many of them.
static ARE_MANY: Plan = Plan::new(
    "SELECT EXISTS (SELECT FROM pushy_internal.channel c OFFSET $1) OR EXISTS (SELECT FROM pushy_internal.channel_acl a OFFSET $1) \
         OR (SELECT COALESCE(pg_catalog.sum(pg_catalog.octet_length(a.topics)), 0) OPERATOR(pg_catalog.>) $2 \
               FROM (SELECT a.topics FROM pushy_internal.channel_acl a LIMIT $1) a)",
    &[INT8OID, INT8OID],
);

pub fn are_more_than(most: i64, bytes: i64) -> bool {
    spi::connect(|spi| spi.run(&ARE_MANY, params![most, bytes]).row(0).bool(1))
}

/// Those of these names.
pub fn of(channels: &[Vec<u8>]) -> Result<Vec<GrantedChannel>> {
    load(&OF, params![array::of_text_bytes(channels)])
}

fn load(plan: &Plan, params: &[spi::Param]) -> Result<Vec<GrantedChannel>> {
    spi::connect(|spi| {
        let mut found: Vec<GrantedChannel> = Vec::new();
        for row in spi.run(plan, params).rows() {
            let channel = row.opt_bytes(1).unwrap_or_default();
            let grant = read_grant(&row)?;
            match found.last_mut() {
                Some(last) if last.channel == channel => last.grants.extend(grant),
                _ => found.push(GrantedChannel {
                    channel,
                    owner: row.oid(2),
                    owner_name: row.text(3)?,
                    home_system: row.i64(4),
                    home_database: row.oid(5).to_u32(),
                    grants: grant.into_iter().collect(),
                }),
            }
        }
        Ok(found)
    })
}

fn read_grant(row: &Row<'_>) -> Result<Option<Grant>> {
    if row.datum(6).is_none() {
        return Ok(None);
    }
    Ok(Some(Grant {
        grantee: row.oid(6),
        grantee_name: row.text(7)?,
        privilege: row.text(8)?,
        topics: row.opt_text(9)?,
        since: row.i64(10),
        granted_at: row.i64(11),
        cursor: row.opt_text(12)?,
    }))
}

static COUNT_REST: Plan = Plan::new(
    "SELECT pg_catalog.count(*) FROM pushy_internal.channel_acl a \
      WHERE NOT EXISTS (SELECT FROM pushy_internal.channel c WHERE c.channel OPERATOR(pg_catalog.=) a.channel \
                           AND c.home_system OPERATOR(pg_catalog.=) a.home_system AND c.home_database OPERATOR(pg_catalog.=) a.home_database)",
    &[],
);
static DROP_REST: Plan = Plan::new(
    "DELETE FROM pushy_internal.channel_acl a \
      WHERE NOT EXISTS (SELECT FROM pushy_internal.channel c WHERE c.channel OPERATOR(pg_catalog.=) a.channel \
                           AND c.home_system OPERATOR(pg_catalog.=) a.home_system AND c.home_database OPERATOR(pg_catalog.=) a.home_database)",
    &[],
);

/// How many grants were loaded without their channel, and count for nobody; removes them, if asked to. As the extension's owner.
pub fn rest(is_dropped: bool) -> i64 {
    if is_dropped {
        spi::run(&DROP_REST, &[]) as i64
    } else {
        spi::connect(|spi| spi.run(&COUNT_REST, &[]).row(0).i64(1))
    }
}

impl GrantedChannel {
    pub fn new(channel: &[u8], owner: Oid) -> Self {
        Self {
            channel: channel.to_vec(),
            owner,
            owner_name: identity::role_name(owner),
            home_system: database::system_identifier(),
            home_database: database::current(),
            grants: Vec::new(),
        }
    }

    pub fn is_of_this_cluster(&self) -> bool {
        self.home_system == database::system_identifier()
    }

    /// Whether the grants were made here, in this cluster and database.
    pub fn is_home(&self) -> bool {
        self.is_of_this_cluster() && self.home_database == database::current()
    }

    /// It came with a dump, and waits: the places of its grants are of when that was loaded.
    pub fn is_loaded(&self) -> bool {
        self.home_database == 0
    }

    pub fn was_at_home(&self, place: &Home) -> bool {
        self.home_system == place.system && self.home_database == place.database.to_u32()
    }

    /// The owner as it is known here; None: gone.
    pub fn owner_here(&self) -> Option<Oid> {
        home::role(self.home_system, self.owner, &self.owner_name)
    }

    /// Whom a grant is to, as known here: its number, 0 for PUBLIC, and its name. None: it is gone.
    pub fn grantee_here(&self, grant: &Grant) -> Option<(Oid, String)> {
        if grant.is_to_all() {
            return Some((grant.grantee, grant.grantee_name.clone()));
        }
        let role = home::role(self.home_system, grant.grantee, &grant.grantee_name)?;
        Some((role, identity::role_name(role)))
    }

    /// Whether a role has the owner's rights.
    pub fn is_owned_by(&self, role: Oid) -> bool {
        identity::is_superuser(role)
            || home::has_rights_of(role, self.home_system, self.owner, &self.owner_name)
    }

    /// The owner's name as it is now; None: gone, and who has its name is another.
    pub fn shown_owner(&self) -> Option<String> {
        self.owner_here().map(identity::role_name)
    }
}
