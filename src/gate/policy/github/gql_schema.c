#include "gate/policy/github/gql_schema.h"

#define C GQL_CONNECTION
#define X GQL_ELSEWHERE
#define AWAY GQL_AWAY
#define OWN (GQL_NOT_PUBLIC | GQL_NOT_AWAY)
#define F(name, type, flags)                 \
	{                                    \
#name, GQL_T_##type, (flags) \
	}
#define P(name, flags)                      \
	{                                   \
#name, GQL_T_PLAIN, (flags) \
	}
#define ITS_REPOSITORY F(repository, Repository, GQL_ITS_REPOSITORY)
#define REACTABLE F(reactionGroups, ReactionGroup, 0), F(reactions, Reaction, C)
#define COMMENT F(author, Actor, 0), F(editor, Actor, 0)
#define END       \
	{         \
		0 \
	}

/* Not here on purpose: packages, dependencyGraphManifests, deployKeys, projects of any kind, timelines, edits of
 * comments, hovercards, stars of others. */
static const struct gql_field f_Repository[] = { F(assignableUsers, User, C),
						 F(branchProtectionRules, BranchProtectionRule, C | OWN),
						 F(codeOfConduct, CodeOfConduct, 0),
						 P(codeowners, OWN),
						 F(collaborators, User, C | OWN),
						 F(commitComments, CommitComment, C),
						 P(contactLinks, 0),
						 P(contributingGuidelines, 0),
						 F(defaultBranchRef, Ref, 0),
						 F(deployments, Deployment, C | OWN),
						 F(discussion, Discussion, 0),
						 F(discussionCategories, DiscussionCategory, C),
						 F(discussionCategory, DiscussionCategory, 0),
						 F(discussions, Discussion, C),
						 F(environment, Environment, OWN),
						 F(environments, Environment, C | OWN),
						 F(forks, Repository, C | X),
						 P(fundingLinks, 0),
						 P(interactionAbility, 0),
						 F(issue, Issue, 0),
						 F(issueOrPullRequest, IssueOrPullRequest, 0),
						 F(issueTemplates, IssueTemplate, 0),
						 F(issues, Issue, C),
						 F(label, Label, 0),
						 F(labels, Label, C),
						 F(languages, Language, C),
						 F(latestRelease, Release, 0),
						 F(licenseInfo, License, 0),
						 F(mentionableUsers, User, C),
						 F(mergeQueue, MergeQueue, OWN),
						 F(milestone, Milestone, 0),
						 F(milestones, Milestone, C),
						 F(object, GitObject, 0),
						 F(owner, RepositoryOwner, GQL_OWNER),
						 F(parent, Repository, X),
						 F(pinnedDiscussions, PinnedDiscussion, C),
						 F(pinnedEnvironments, PinnedEnvironment, C | OWN),
						 F(pinnedIssues, PinnedIssue, C),
						 F(primaryLanguage, Language, 0),
						 F(pullRequest, PullRequest, 0),
						 P(pullRequestTemplates, 0),
						 F(pullRequests, PullRequest, C),
						 F(ref, Ref, 0),
						 F(refs, Ref, C),
						 F(release, Release, 0),
						 F(releases, Release, C),
						 F(repositoryTopics, RepositoryTopic, C),
						 F(ruleset, RepositoryRuleset, OWN),
						 F(rulesets, RepositoryRuleset, C | OWN),
						 F(stargazers, User, C),
						 P(submodules, C),
						 F(suggestedActors, Actor, C),
						 F(templateRepository, Repository, X),
						 F(vulnerabilityAlert, RepositoryVulnerabilityAlert, OWN),
						 F(vulnerabilityAlerts, RepositoryVulnerabilityAlert, C | OWN),
						 F(watchers, User, C),
						 END };

static const struct gql_field f_PullRequest[] = { COMMENT,
						  REACTABLE,
						  ITS_REPOSITORY,
						  F(assignedActors, Assignee, C),
						  F(assignees, User, C),
						  F(autoMergeRequest, AutoMergeRequest, 0),
						  F(baseRef, Ref, 0),
						  F(baseRepository, Repository, GQL_ITS_REPOSITORY),
						  F(closingIssuesReferences, Issue, C | X),
						  F(comments, IssueComment, C),
						  F(commits, PullRequestCommit, C),
						  P(files, C),
						  F(headRef, Ref, AWAY),
						  F(headRepository, Repository, X),
						  F(headRepositoryOwner, RepositoryOwner, 0),
						  F(labels, Label, C),
						  F(latestOpinionatedReviews, PullRequestReview, C),
						  F(latestReviews, PullRequestReview, C),
						  F(mergeCommit, Commit, 0),
						  F(mergeQueue, MergeQueue, OWN),
						  F(mergeQueueEntry, MergeQueueEntry, OWN),
						  F(mergedBy, Actor, 0),
						  F(milestone, Milestone, 0),
						  F(participants, User, C),
						  F(potentialMergeCommit, Commit, 0),
						  F(projectCards, ProjectCard, C),
						  F(projectItems, ProjectV2Item, C | GQL_NOT_PUBLIC),
						  F(reviewRequests, ReviewRequest, C),
						  F(reviewThreads, PullRequestReviewThread, C),
						  F(reviews, PullRequestReview, C),
						  F(statusCheckRollup, StatusCheckRollup, 0),
						  F(suggestedActors, Actor, C),
						  F(suggestedReviewerActors, SuggestedReviewerActor, C),
						  F(suggestedReviewers, SuggestedReviewer, 0),
						  F(viewerLatestReview, PullRequestReview, GQL_NOT_PUBLIC),
						  F(viewerLatestReviewRequest, ReviewRequest, GQL_NOT_PUBLIC),
						  END };

static const struct gql_field f_Issue[] = { COMMENT,
					    REACTABLE,
					    ITS_REPOSITORY,
					    F(assignedActors, Assignee, C),
					    F(assignees, User, C),
					    F(blockedBy, Issue, C | X),
					    F(blocking, Issue, C | X),
					    F(closedByPullRequestsReferences, PullRequest, C | X),
					    F(comments, IssueComment, C),
					    F(duplicateOf, IssueOrPullRequest, X),
					    P(issueDependenciesSummary, 0),
					    P(issueType, 0),
					    F(labels, Label, C),
					    F(linkedBranches, LinkedBranch, C),
					    F(milestone, Milestone, 0),
					    F(parent, Issue, X),
					    F(participants, User, C),
					    F(projectCards, ProjectCard, C),
					    F(projectItems, ProjectV2Item, C | GQL_NOT_PUBLIC),
					    F(subIssues, Issue, C | X),
					    P(subIssuesSummary, 0),
					    F(suggestedActors, Actor, C),
					    F(trackedInIssues, Issue, C | X),
					    F(trackedIssues, Issue, C | X),
					    END };

static const struct gql_field f_Commit[] = { ITS_REPOSITORY,
					     F(associatedPullRequests, PullRequest, C | X),
					     F(author, GitActor, 0),
					     F(authors, GitActor, C),
					     F(blame, Blame, 0),
					     F(checkSuites, CheckSuite, C),
					     F(comments, CommitComment, C),
					     F(committer, GitActor, 0),
					     F(deployments, Deployment, C | OWN),
					     F(file, TreeEntry, 0),
					     F(history, Commit, C),
					     F(onBehalfOf, Organization, 0),
					     F(parents, Commit, C),
					     F(signature, GitSignature, 0),
					     F(status, Status, 0),
					     F(statusCheckRollup, StatusCheckRollup, 0),
					     P(submodules, C),
					     F(tree, Tree, 0),
					     END };

/* compare() names the other side; its argument is checked in the walk. */
static const struct gql_field f_Ref[] = { ITS_REPOSITORY,
					  F(associatedPullRequests, PullRequest, C | X),
					  F(branchProtectionRule, BranchProtectionRule, GQL_NOT_AWAY),
					  F(compare, Comparison, GQL_NOT_AWAY | AWAY),
					  P(refUpdateRule, GQL_NOT_AWAY),
					  F(rules, RepositoryRule, C | GQL_NOT_AWAY),
					  F(target, GitObject, 0),
					  END };

static const struct gql_field f_Tree[] = { ITS_REPOSITORY, F(entries, TreeEntry, 0), END };
static const struct gql_field f_TreeEntry[] = { ITS_REPOSITORY, F(language, Language, 0), F(object, GitObject, 0),
						P(submodule, 0), END };
static const struct gql_field f_Blob[] = { ITS_REPOSITORY, END };
static const struct gql_field f_Tag[] = { ITS_REPOSITORY, F(tagger, GitActor, 0), F(target, GitObject, 0), END };
static const struct gql_field f_GitObject[] = { ITS_REPOSITORY, END };
static const struct gql_field f_GitActor[] = { F(user, User, 0), END };
static const struct gql_field f_GitSignature[] = { F(signer, User, 0), END };
#define f_GpgSignature f_GitSignature
#define f_SmimeSignature f_GitSignature
#define f_SshSignature f_GitSignature
#define f_UnknownSignature f_GitSignature
static const struct gql_field f_Blame[] = { F(ranges, BlameRange, 0), END };
static const struct gql_field f_BlameRange[] = { F(commit, Commit, 0), END };
static const struct gql_field f_Comparison[] = { F(baseTarget, GitObject, 0), F(commits, Commit, C),
						 F(headTarget, GitObject, 0), END };

static const struct gql_field f_Label[] = { ITS_REPOSITORY, F(issues, Issue, C), F(pullRequests, PullRequest, C), END };
static const struct gql_field f_Milestone[] = { ITS_REPOSITORY, F(creator, Actor, 0), F(issues, Issue, C),
						F(pullRequests, PullRequest, C), END };

static const struct gql_field f_Release[] = { ITS_REPOSITORY,
					      REACTABLE,
					      F(author, User, 0),
					      F(mentions, User, C),
					      F(releaseAssets, ReleaseAsset, C),
					      F(tag, Ref, 0),
					      F(tagCommit, Commit, 0),
					      END };
static const struct gql_field f_ReleaseAsset[] = { F(release, Release, 0), F(uploadedBy, User, 0), END };

static const struct gql_field f_Discussion[] = { COMMENT,
						 REACTABLE,
						 ITS_REPOSITORY,
						 F(answer, DiscussionComment, 0),
						 F(answerChosenBy, Actor, 0),
						 F(category, DiscussionCategory, 0),
						 F(comments, DiscussionComment, C),
						 F(labels, Label, C),
						 F(poll, DiscussionPoll, 0),
						 END };
static const struct gql_field f_DiscussionComment[] = { COMMENT,
							REACTABLE,
							F(discussion, Discussion, 0),
							F(replies, DiscussionComment, C),
							F(replyTo, DiscussionComment, 0),
							END };
static const struct gql_field f_DiscussionCategory[] = { ITS_REPOSITORY, END };
static const struct gql_field f_DiscussionPoll[] = { F(discussion, Discussion, 0), F(options, DiscussionPollOption, C),
						     END };
static const struct gql_field f_DiscussionPollOption[] = { F(poll, DiscussionPoll, 0), END };

static const struct gql_field f_IssueComment[] = {
	COMMENT, REACTABLE, ITS_REPOSITORY, F(issue, Issue, 0), F(pullRequest, PullRequest, 0), END
};
static const struct gql_field f_CommitComment[] = { COMMENT, REACTABLE, ITS_REPOSITORY, F(commit, Commit, AWAY), END };

static const struct gql_field f_PullRequestReview[] = { COMMENT,
							REACTABLE,
							ITS_REPOSITORY,
							F(comments, PullRequestReviewComment, C),
							F(commit, Commit, AWAY),
							F(onBehalfOf, Team, C),
							F(pullRequest, PullRequest, 0),
							END };
static const struct gql_field f_PullRequestReviewComment[] = { COMMENT,
							       REACTABLE,
							       ITS_REPOSITORY,
							       F(commit, Commit, AWAY),
							       F(originalCommit, Commit, AWAY),
							       F(pullRequest, PullRequest, 0),
							       F(pullRequestReview, PullRequestReview, 0),
							       F(replyTo, PullRequestReviewComment, 0),
							       END };
static const struct gql_field f_PullRequestReviewThread[] = { ITS_REPOSITORY, F(comments, PullRequestReviewComment, C),
							      F(pullRequest, PullRequest, 0), F(resolvedBy, User, 0),
							      END };
static const struct gql_field f_PullRequestCommit[] = { F(commit, Commit, AWAY), F(pullRequest, PullRequest, 0), END };
static const struct gql_field f_ReviewRequest[] = { F(pullRequest, PullRequest, 0),
						    F(requestedReviewer, RequestedReviewer, 0), END };
static const struct gql_field f_AutoMergeRequest[] = { F(enabledBy, Actor, 0), F(pullRequest, PullRequest, 0), END };
static const struct gql_field f_MergeQueue[] = { ITS_REPOSITORY, P(configuration, 0), F(entries, MergeQueueEntry, C),
						 END };
static const struct gql_field f_MergeQueueEntry[] = { F(baseCommit, Commit, 0),	      F(enqueuer, Actor, 0),
						      F(headCommit, Commit, AWAY),    F(mergeQueue, MergeQueue, 0),
						      F(pullRequest, PullRequest, 0), END };
static const struct gql_field f_LinkedBranch[] = { F(ref, Ref, X), END }; /* of any repository */
static const struct gql_field f_IssueTemplate[] = { F(assignees, User, C), F(labels, Label, C), END };
static const struct gql_field f_PinnedIssue[] = { ITS_REPOSITORY, F(issue, Issue, 0), F(pinnedBy, Actor, 0), END };
static const struct gql_field f_PinnedDiscussion[] = { ITS_REPOSITORY, F(discussion, Discussion, 0),
						       F(pinnedBy, Actor, 0), END };
static const struct gql_field f_PinnedEnvironment[] = { ITS_REPOSITORY, F(environment, Environment, 0), END };
static const struct gql_field f_Reaction[] = { F(reactable, Reactable, 0), F(user, User, 0), END };
static const struct gql_field f_ReactionGroup[] = { F(reactors, Reactor, C), F(subject, Reactable, 0),
						    F(users, User, C), END };

static const struct gql_field f_CheckSuite[] = { ITS_REPOSITORY,
						 F(app, App, 0),
						 F(branch, Ref, AWAY),
						 F(checkRuns, CheckRun, C),
						 F(commit, Commit, AWAY),
						 F(creator, User, 0),
						 F(matchingPullRequests, PullRequest, C | X),
						 F(push, Push, 0),
						 F(workflowRun, WorkflowRun, 0),
						 END };
static const struct gql_field f_CheckRun[] = { ITS_REPOSITORY,
					       F(annotations, CheckAnnotation, C),
					       F(checkSuite, CheckSuite, 0),
					       F(deployment, Deployment, OWN),
					       P(steps, C),
					       END };
static const struct gql_field f_CheckAnnotation[] = { F(location, CheckAnnotationSpan, 0), END };
static const struct gql_field f_CheckAnnotationSpan[] = { P(end, 0), P(start, 0), END };
static const struct gql_field f_WorkflowRun[] = { F(checkSuite, CheckSuite, 0), F(file, WorkflowRunFile, 0),
						  F(workflow, Workflow, 0), END };
static const struct gql_field f_WorkflowRunFile[] = { F(run, WorkflowRun, 0), END };
static const struct gql_field f_Workflow[] = { F(runs, WorkflowRun, C), END };
static const struct gql_field f_Push[] = { ITS_REPOSITORY, F(pusher, Actor, 0), END };
static const struct gql_field f_Status[] = { F(combinedContexts, StatusCheckRollupContext, C), F(commit, Commit, AWAY),
					     F(context, StatusContext, 0), F(contexts, StatusContext, 0), END };
static const struct gql_field f_StatusContext[] = { F(commit, Commit, AWAY), F(creator, Actor, 0), END };
static const struct gql_field f_StatusCheckRollup[] = { F(commit, Commit, AWAY),
							F(contexts, StatusCheckRollupContext, C), END };

static const struct gql_field f_Deployment[] = { ITS_REPOSITORY,
						 F(commit, Commit, AWAY),
						 F(creator, Actor, 0),
						 F(latestStatus, DeploymentStatus, 0),
						 F(ref, Ref, AWAY),
						 F(statuses, DeploymentStatus, C),
						 END };
static const struct gql_field f_DeploymentStatus[] = { F(creator, Actor, 0), F(deployment, Deployment, 0), END };
static const struct gql_field f_Environment[] = { F(latestCompletedDeployment, Deployment, 0), P(protectionRules, C),
						  END };
static const struct gql_field f_BranchProtectionRule[] = { ITS_REPOSITORY, F(creator, Actor, 0),
							   F(matchingRefs, Ref, C),
							   F(requiredStatusChecks, RequiredStatusCheckDescription, 0),
							   END };
static const struct gql_field f_RequiredStatusCheckDescription[] = { F(app, App, 0), END };
static const struct gql_field f_RepositoryRuleset[] = { F(conditions, RepositoryRuleConditions, 0),
							F(rules, RepositoryRule, C), F(source, RuleSource, X), END };
static const struct gql_field f_RepositoryRule[] = { F(repositoryRuleset, RepositoryRuleset, 0), END };
static const struct gql_field f_RepositoryRuleConditions[] = { P(refName, 0), END };
static const struct gql_field f_RepositoryVulnerabilityAlert[] = { ITS_REPOSITORY, F(dismisser, User, 0),
								   F(securityAdvisory, SecurityAdvisory, 0), END };
static const struct gql_field f_RepositoryTopic[] = { F(topic, Topic, 0), END };
static const struct gql_field f_SuggestedReviewer[] = { F(reviewer, User, 0), END };
static const struct gql_field f_SuggestedReviewerActor[] = { F(reviewer, Actor, 0), END };

static const struct gql_field f_Assignable[] = { F(assignees, User, C), F(assignedActors, Assignee, C),
						 F(suggestedActors, Actor, C), END };
static const struct gql_field f_Comment[] = { COMMENT, END };
static const struct gql_field f_Labelable[] = { F(labels, Label, C), END };
static const struct gql_field f_Reactable[] = { REACTABLE, END };
static const struct gql_field f_RepositoryInfo[] = { F(licenseInfo, License, 0), F(owner, RepositoryOwner, GQL_OWNER),
						     END };
static const struct gql_field f_RepositoryNode[] = { ITS_REPOSITORY, END };

/* Accounts, and projects as far as an issue shows them: everything that is not here is refused, plain values too
 * (gql_walk.c). */
static const struct gql_field f_Team[] = { F(organization, Organization, 0), END };
static const struct gql_field f_ProjectCard[] = { F(column, ProjectColumn, 0), F(project, Project, 0), END };
static const struct gql_field f_ProjectV2Item[] = { F(fieldValueByName, ProjectV2ItemFieldValue, 0),
						    F(project, ProjectV2, 0), END };

#define f_Query NULL
#define f_IssueOrPullRequest NULL
#define f_SearchResultItem NULL
#define f_StatusCheckRollupContext NULL
#define f_RuleSource NULL
#define f_Closable NULL
#define f_Deletable NULL
#define f_Lockable NULL
#define f_Minimizable NULL
#define f_RequirableByPullRequest NULL
#define f_Subscribable NULL
#define f_Updatable NULL
#define f_UpdatableComment NULL
#define f_Votable NULL
#define f_Node NULL
#define f_UniformResourceLocatable NULL
#define f_Actor NULL
#define f_User NULL
#define f_Bot NULL
#define f_Mannequin NULL
#define f_Organization NULL
#define f_Enterprise NULL
#define f_EnterpriseUserAccount NULL
#define f_App NULL
#define f_RepositoryOwner NULL
#define f_RequestedReviewer NULL
#define f_Reactor NULL
#define f_Assignee NULL
#define f_License NULL
#define f_Language NULL
#define f_CodeOfConduct NULL
#define f_Topic NULL
#define f_SecurityAdvisory NULL
#define f_GitHubMetadata NULL
#define f_RateLimit NULL
#define f_ProjectV2 NULL
#define f_ProjectV2ItemFieldValue NULL
#define f_ProjectV2ItemFieldSingleSelectValue NULL
#define f_Project NULL
#define f_ProjectColumn NULL

#undef X
const struct gql_type_row gql_types[GQL_TYPES_N] = {
#define X(type, open) [GQL_T_##type] = { #type, GQL_OPEN_##open, f_##type },
	GQL_TYPES(X)
#undef X
		[GQL_T_PLAIN] = { "", GQL_OPEN_OBJECT, NULL },
	[GQL_T_SCHEMA] = { "", GQL_OPEN_CONSTANT, NULL },
	[GQL_T_PAYLOAD] = { "", GQL_OPEN_OBJECT, NULL },
};

enum gql_type gql_type_find(struct span name)
{
	for (unsigned t = 0; t < GQL_TYPES_N; t++)
		if (name.n > 0 && span_is(name, gql_types[t].name))
			return (enum gql_type)t;
	return GQL_TYPES_N;
}

const struct gql_field *gql_field_find(enum gql_type t, struct span name)
{
	for (const struct gql_field *f = gql_types[t].fields; f && f->name; f++)
		if (span_is(name, f->name))
			return f;
	return NULL;
}
