/* The part of GitHub's GraphQL schema that the rules know: which fields hold objects, and of which type. A field that
 * holds a plain value needs no row; a field with braces that has none is refused. What stands here was read off the
 * public schema and the page on GitHub, 2.5, and decided row by row. */
#pragma once

#include <stdint.h>

#include "base/span.h"

/* X(name, how far objects of the type are open whatever holds them) */
#define GQL_TYPES(X)                                      \
	X(Query, OBJECT)                                  \
	/* of a repository */                             \
	X(Repository, OBJECT)                             \
	X(PullRequest, OBJECT)                            \
	X(Issue, OBJECT)                                  \
	X(IssueOrPullRequest, OBJECT)                     \
	X(SearchResultItem, OBJECT)                       \
	X(Commit, OBJECT)                                 \
	X(Ref, OBJECT)                                    \
	X(Tree, OBJECT)                                   \
	X(TreeEntry, OBJECT)                              \
	X(Blob, OBJECT)                                   \
	X(Tag, OBJECT)                                    \
	X(GitObject, OBJECT)                              \
	X(GitActor, OBJECT)                               \
	X(GitSignature, OBJECT)                           \
	X(GpgSignature, OBJECT)                           \
	X(SmimeSignature, OBJECT)                         \
	X(SshSignature, OBJECT)                           \
	X(UnknownSignature, OBJECT)                       \
	X(Blame, OBJECT)                                  \
	X(BlameRange, OBJECT)                             \
	X(Comparison, OBJECT)                             \
	X(Label, OBJECT)                                  \
	X(Milestone, OBJECT)                              \
	X(Release, OBJECT)                                \
	X(ReleaseAsset, OBJECT)                           \
	X(Discussion, OBJECT)                             \
	X(DiscussionComment, OBJECT)                      \
	X(DiscussionCategory, OBJECT)                     \
	X(DiscussionPoll, OBJECT)                         \
	X(DiscussionPollOption, OBJECT)                   \
	X(IssueComment, OBJECT)                           \
	X(CommitComment, OBJECT)                          \
	X(PullRequestReview, OBJECT)                      \
	X(PullRequestReviewComment, OBJECT)               \
	X(PullRequestReviewThread, OBJECT)                \
	X(PullRequestCommit, OBJECT)                      \
	X(ReviewRequest, OBJECT)                          \
	X(AutoMergeRequest, OBJECT)                       \
	X(MergeQueue, OBJECT)                             \
	X(MergeQueueEntry, OBJECT)                        \
	X(LinkedBranch, OBJECT)                           \
	X(IssueTemplate, OBJECT)                          \
	X(PinnedIssue, OBJECT)                            \
	X(PinnedDiscussion, OBJECT)                       \
	X(PinnedEnvironment, OBJECT)                      \
	X(Reaction, OBJECT)                               \
	X(ReactionGroup, OBJECT)                          \
	X(CheckSuite, OBJECT)                             \
	X(CheckRun, OBJECT)                               \
	X(CheckAnnotation, OBJECT)                        \
	X(CheckAnnotationSpan, OBJECT)                    \
	X(WorkflowRun, OBJECT)                            \
	X(WorkflowRunFile, OBJECT)                        \
	X(Workflow, OBJECT)                               \
	X(Push, OBJECT)                                   \
	X(Status, OBJECT)                                 \
	X(StatusContext, OBJECT)                          \
	X(StatusCheckRollup, OBJECT)                      \
	X(StatusCheckRollupContext, OBJECT)               \
	X(Deployment, OBJECT)                             \
	X(DeploymentStatus, OBJECT)                       \
	X(Environment, OBJECT)                            \
	X(BranchProtectionRule, OBJECT)                   \
	X(RequiredStatusCheckDescription, OBJECT)         \
	X(RepositoryRuleset, OBJECT)                      \
	X(RepositoryRule, OBJECT)                         \
	X(RepositoryRuleConditions, OBJECT)               \
	X(RuleSource, OBJECT)                             \
	X(RepositoryVulnerabilityAlert, OBJECT)           \
	X(RepositoryTopic, OBJECT)                        \
	X(SuggestedReviewer, OBJECT)                      \
	X(SuggestedReviewerActor, OBJECT)                 \
	/* interfaces of what a repository holds */       \
	X(Assignable, OBJECT)                             \
	X(Closable, OBJECT)                               \
	X(Comment, OBJECT)                                \
	X(Deletable, OBJECT)                              \
	X(Labelable, OBJECT)                              \
	X(Lockable, OBJECT)                               \
	X(Minimizable, OBJECT)                            \
	X(Reactable, OBJECT)                              \
	X(RepositoryInfo, OBJECT)                         \
	X(RepositoryNode, OBJECT)                         \
	X(RequirableByPullRequest, OBJECT)                \
	X(Subscribable, OBJECT)                           \
	X(Updatable, OBJECT)                              \
	X(UpdatableComment, OBJECT)                       \
	X(Votable, OBJECT)                                \
	/* of everything; only what says where it lies */ \
	X(Node, ANY)                                      \
	X(UniformResourceLocatable, ANY)                  \
	/* accounts */                                    \
	X(Actor, ACCOUNT)                                 \
	X(User, ACCOUNT)                                  \
	X(Bot, ACCOUNT)                                   \
	X(Mannequin, ACCOUNT)                             \
	X(Organization, ACCOUNT)                          \
	X(Enterprise, ACCOUNT)                            \
	X(EnterpriseUserAccount, ACCOUNT)                 \
	X(Team, ACCOUNT)                                  \
	X(App, ACCOUNT)                                   \
	X(RepositoryOwner, ACCOUNT)                       \
	X(RequestedReviewer, ACCOUNT)                     \
	X(Reactor, ACCOUNT)                               \
	X(Assignee, ACCOUNT)                              \
	/* the same for everybody */                      \
	X(License, CONSTANT)                              \
	X(Language, CONSTANT)                             \
	X(CodeOfConduct, CONSTANT)                        \
	X(Topic, CONSTANT)                                \
	X(SecurityAdvisory, CONSTANT)                     \
	X(GitHubMetadata, CONSTANT)                       \
	X(RateLimit, CONSTANT)                            \
	/* what an issue shows of projects */             \
	X(ProjectV2, PROJECT)                             \
	X(ProjectV2Item, PROJECT)                         \
	X(ProjectV2ItemFieldValue, PROJECT)               \
	X(ProjectV2ItemFieldSingleSelectValue, PROJECT)   \
	X(Project, PROJECT)                               \
	X(ProjectCard, PROJECT)                           \
	X(ProjectColumn, PROJECT)

enum gql_type {
#define X(name, open) GQL_T_##name,
	GQL_TYPES(X)
#undef X
		GQL_T_PLAIN, /* holds plain values only; its name is of no use to anybody */
	GQL_T_SCHEMA,	     /* introspection */
	GQL_T_PAYLOAD,	     /* what a mutation answers; its fields stand with the mutation */
	GQL_TYPES_N,
};

enum gql_open { GQL_OPEN_OBJECT, GQL_OPEN_ANY, GQL_OPEN_ACCOUNT, GQL_OPEN_CONSTANT, GQL_OPEN_PROJECT };

enum gql_field_flag {
	GQL_CONNECTION = 1,	/* nodes, edges, pageInfo */
	GQL_ELSEWHERE = 2,	/* may lie in any repository */
	GQL_AWAY = 4,		/* of this repository's network: its "repository" may be a fork */
	GQL_ITS_REPOSITORY = 8, /* the repository that holds the object */
	GQL_NOT_PUBLIC = 16,	/* not of a repository that is read because it is public */
	GQL_NOT_AWAY = 32,	/* not of what may lie in a fork */
	GQL_OWNER = 64,		/* of a listed repository: its owner */
	GQL_IN_EDGE = 128,	/* of a payload: one edge of a connection */
};

struct gql_field {
	const char *name;
	uint8_t type, flags;
};

struct gql_type_row {
	const char *name;
	enum gql_open open;
	const struct gql_field *fields; /* up to one without a name; may be NULL */
};

extern const struct gql_type_row gql_types[GQL_TYPES_N];

/* GQL_TYPES_N for a name that is not in the table. */
enum gql_type gql_type_find(struct span name);

/* NULL for a field that holds no object that is known. */
const struct gql_field *gql_field_find(enum gql_type t, struct span name);
