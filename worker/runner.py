"""One attempt, from create to destroy, as the list of its steps.

The order at the end is fixed (I7): agent dead, collect, durable, accepted, destroy, capacity free. It is the same on
success, failure, timeout, cancel and shutdown: what can still be read is brought back first.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

from tatin_jobs.errors import AttemptError, DiskFull, SandboxError, TatinError
from tatin_jobs.models import Lease, Verify
from tatin_jobs.needs import granted
from tatin_jobs.results import (
    EVENTS_FILE,
    LOG_FILE,
    PATCH_FILE,
    AgentFacts,
    CommandFacts,
    Result,
    StepTime,
    VerifyFacts,
    write_result,
)
from tatin_jobs.states import JobState, Outcome, Reason, Step
from tatin_jobs.store import Booked
from tatin_jobs.tools import InstalledTool, find_tool
from worker.acceptance import accept
from worker.adoption import AGENT_LABEL, Adopted
from worker.agents import adapter
from worker.agents.base import AgentAdapter, AgentPlan, AgentReader, AgentTask, ModelRoute, Verdict
from worker.agents.config import user_config
from worker.collect import CollectLimits, CollectSpec, collect, snapshot
from worker.context import Context
from worker.control import Control, Interruption, Stop
from worker.ending import Ending, excused, failed_by, how_it_ended, interrupted_by, os_failure
from worker.events import EventLog
from worker.facts import Facts
from worker.followed import Followed, cpu_of, follow_run, run_followed
from worker.gateway import ModelGateway, check_budget, price_of, select_provider, speaking
from worker.gateway.providers import host_and_port
from worker.guest_network import GuestNetwork
from worker.holds import seen_at, watch_probe
from worker.job_secrets import read_job_secrets
from worker.journal import Entry
from worker.keeping import keep_sandbox
from worker.kept import is_kept
from worker.live_log import LiveLog
from worker.outbox import Outbox
from worker.patching import apply_patch
from worker.patience import ask
from worker.repository import clone_into
from worker.reward import REWARD_DIR, REWARD_VARIABLE, make_reward_folder, read_reward
from worker.route_stops import stopped_by_route
from worker.sandboxes.base import (
    GUEST_HOME,
    GUEST_REPO,
    GUEST_RUN,
    GUEST_WORK,
    Run,
    RunChunk,
    Sandbox,
    SandboxSpec,
    StartSpec,
    ToolMount,
)
from worker.sandboxes.image_parts import check_parts
from worker.sandboxes.names import sandbox_name, verify_name
from worker.sandboxes.transfer import push_files
from worker.sweep import destroy_sandbox
from worker.verdicts import Verified, decide, verified_by

MODEL_PORT = 4017
"""The port of the guest's loopback at which its model answers. Any would do: the guest's network is its own."""
PROMPT_PATH = f"{GUEST_RUN}/prompt.txt"
CREATE_SECONDS = 15 * 60
"""Of any provider: a cold boot under emulation takes minutes, a hung one for ever (F50)."""
SETUP_TIMEOUT_SECONDS = 30 * 60
COLLECT_TIMEOUT_SECONDS = 30 * 60
HURRIED_COLLECT_SECONDS = 30
LAST_SIGNAL_SECONDS = 0.3
COLLECT_MARGIN_SECONDS = 10
"""What collecting keeps of its time for making durable what came."""

log = logging.getLogger(__name__)


class Attempt:
    """Runs one lease. Made and run in the event loop; ``run`` raises only when the loop itself is cancelled."""

    def __init__(self, context: Context, lease: Lease, control: Control, adopted: Adopted | None = None) -> None:
        self._context = context
        self._adopted = adopted
        self._lease = lease
        self._spec = lease.job.spec
        self._control = control
        self._name = sandbox_name(context.home_id, lease.job.id, lease.attempt)
        self._need = granted(lease.job.need, context.offer)
        self._folder = context.home.attempt(lease.job.id, lease.attempt)
        self._events = EventLog(self._folder / EVENTS_FILE, context.redactor)
        self._outbox = Outbox(context.store, lease)
        self._facts = Facts(lease, AgentFacts(tool=self._spec.tool, model=self._spec.model))
        self._network = GuestNetwork(context.settings.gateway, self._spec, self._tell)
        self._facts.network = self._network
        self._stack = AsyncExitStack()
        self._sandbox: Sandbox | None = None
        self._outcome: Outcome | None = None
        self._gateway: ModelGateway | None = None
        self._plan = AgentPlan(argv=())
        self._base_tar: Path | None = None
        self._route_token: str | None = None
        self._entry = Entry(
            sandbox=self._name, job=lease.job.id, attempt=lease.attempt, token=lease.token, need=self._need
        )
        self._secrets: dict[str, str] = {}

    async def run(self) -> None:
        """Run it to its end; then the job is finished, queued or held, and the sandbox gone or left to the sweep."""
        try:
            async with self._outbox:
                ending = self._shown(await self._collect(await self._excuse(await self._work())))
            await self._accept(ending)
            self._outcome = ending.outcome
        finally:
            await self._destroy()

    # The steps

    async def _work(self) -> Ending:
        """The steps up to the verdict, given up at once when somebody asks or the sandbox dies."""
        steps = asyncio.create_task(self._run_steps())
        stop = asyncio.create_task(self._control.wait())
        try:
            await asyncio.wait({steps, stop}, return_when=asyncio.FIRST_COMPLETED)
            if not steps.done():
                steps.cancel()
                await asyncio.gather(steps, return_exceptions=True)
                return await self._oom_or(interrupted_by(stop.result()))
            return await steps
        except AttemptError as error:
            return failed_by(error)
        except OSError as error:
            return failed_by(os_failure(error))
        except TatinError as error:
            return Ending(Outcome.FAILED, Reason.WORKER, str(error))
        except Exception as error:
            log.exception("action=fault job=%s attempt=%d", self._lease.job.id, self._lease.attempt)
            text = f"A fault in Tatin itself ({type(error).__name__}); the worker's log has it."
            return Ending(Outcome.FAILED, Reason.WORKER, text)
        finally:
            stop.cancel()

    async def _excuse(self, ending: Ending) -> Ending:
        """What failed because the whole machine goes down is handed back; the worker's own signal may come a moment
        after the one that ended the sandbox."""
        if excused(ending) is ending:
            return ending
        await asyncio.sleep(LAST_SIGNAL_SECONDS)
        return excused(ending) if self._control.draining else ending

    async def _run_steps(self) -> Ending:
        self._folder.mkdir(parents=True, exist_ok=True)
        sandbox = await (self._take_over(self._adopted) if self._adopted else self._begin())
        async with self._step(Step.AGENT):
            verdict = await self._run_agent(sandbox)
        if not self._spec.verify or verdict.outcome not in (Outcome.SUCCEEDED, Outcome.TIMED_OUT):
            return decide(verdict, None)
        return decide(verdict, await self._verify(sandbox, self._spec.verify))

    async def _begin(self) -> Sandbox:
        """All that comes before the agent."""
        async with self._step(Step.CREATING):
            sandbox = await self._create()
        async with self._step(Step.PROVISIONING):
            await self._provision(sandbox)
        async with self._step(Step.CLONING):
            await self._clone(sandbox)
        if self._spec.setup:
            async with self._step(Step.SETUP):
                await self._set_up(sandbox, self._spec.setup)
        return sandbox

    async def _take_over(self, adopted: Adopted) -> Sandbox:
        """What an earlier worker of this home had of this attempt; its agent is not disturbed."""
        going = adopted.going
        self._entry, self._sandbox = adopted.entry, adopted.sandbox
        self._route_token, self._base_tar = going.route_token, Path(going.base_tar) if going.base_tar else None
        self._plan = AgentPlan(argv=(), transcript_paths=going.transcript_paths)
        self._facts.go_on(going)
        self._events.begin_again()
        await self._read_secrets()
        self._watch(adopted.sandbox)
        await self._open_route(adopted.sandbox)
        await self._stack.enter_async_context(self._network)
        await self._network.resume(adopted.sandbox, going.allow_lists)
        return adopted.sandbox

    async def _read_secrets(self) -> None:
        context = self._context
        self._secrets = await asyncio.to_thread(
            read_job_secrets, context.settings, self._spec.secrets, context.redactor
        )

    async def _create(self) -> Sandbox:
        await self._read_secrets()
        tools = self._host_tools()
        if tools:
            self._facts.agent = self._facts.agent.model_copy(update={"version": tools[0].version})
        self._context.lingering.add(self._name, Booked.of(self._need, self._lease.job.id, self._lease.token))
        self._entry = self._entry.model_copy(update={"sandbox": self._name, "going": None})
        await asyncio.to_thread(self._context.journal.write, self._entry)
        try:
            async with asyncio.timeout(CREATE_SECONDS):
                self._sandbox = await self._context.provider.create(self._sandbox_spec(tools))
        except TimeoutError as error:
            raise SandboxError(f"Sandbox '{self._name}' was not made within {CREATE_SECONDS} s.") from error
        self._watch(self._sandbox)
        check_parts(self._sandbox, self._agent_adapter.tool_packages)
        return self._sandbox

    def _host_tools(self) -> list[InstalledTool]:
        """The agent's programs on this host, for guests that have none of their own."""
        if self._context.provider.own_image:
            return []
        home, settings = self._context.home, self._context.settings
        return [find_tool(home, name, settings.agent(name).version) for name in self._agent_adapter.tool_packages]

    def _watch(self, sandbox: Sandbox) -> None:
        self._facts.saw_sandbox(self._context.provider, sandbox, self._need)
        self._facts.saw_parts(sandbox, self._agent_adapter.tool_packages)
        for watching in (self._watch_death(sandbox), self._watch_full(sandbox)):
            watch = asyncio.create_task(watching)
            self._stack.callback(watch.cancel)

    async def _provision(self, sandbox: Sandbox) -> None:
        """Prompt, inputs and the agent's configuration into the guest; the way to its model."""
        files = await asyncio.to_thread(self._read_inputs)
        self._plan = self._agent_adapter.plan(
            AgentTask(
                job_id=self._lease.job.id,
                spec=self._spec,
                prompt_path=PROMPT_PATH,
                repo_path=self._cwd,
                home_path=GUEST_HOME,
                route=await self._open_route(sandbox),
                prompt_start=files[PROMPT_PATH][:64],
                config=await asyncio.to_thread(user_config, self._context.settings.agent(self._spec.tool).config),
            )
        )
        files[PROMPT_PATH] = self._plan.stdin_prefix + files[PROMPT_PATH]
        await push_files(sandbox, {**files, **self._plan.files})
        await self._connect(sandbox)

    async def _connect(self, sandbox: Sandbox) -> None:
        """The guest's way to what its job allows."""
        await self._stack.enter_async_context(self._network)
        await self._network.attach(sandbox)

    async def _open_route(self, sandbox: Sandbox) -> ModelRoute | None:
        """The guest's way to its model, with a token that is worth nothing elsewhere and dies with the attempt."""
        if self._spec.model is None:
            return None
        name, provider = select_provider(self._context.settings, self._spec.model)
        api, provider = speaking(name, provider, self._spec.tool, self._agent_adapter.apis)
        token = self._route_token = self._route_token or secrets.token_urlsafe(32)
        price = price_of(self._context.settings, name, provider, self._spec.model.name)
        check_budget(self._spec.budget, price, name, self._spec.model.name)
        gateway = ModelGateway(
            provider, self._spec.model, token, price=price, budget=self._spec.budget, redactor=self._context.redactor
        )
        self._gateway = await self._stack.enter_async_context(gateway)
        self._facts.route = self._gateway.usage
        if self._lease.probe:
            probe = asyncio.create_task(watch_probe(self._context.store, self._lease, self._gateway.usage))
            self._stack.callback(probe.cancel)
        self._facts.model_server = host_and_port(provider)
        await sandbox.serve(MODEL_PORT, self._gateway.protocol)
        return ModelRoute(
            base_url=f"http://127.0.0.1:{MODEL_PORT}",
            token=token,
            model=self._spec.model.name,
            provider=name,
            api=api,
            subscription=provider.subscription,
            context_tokens=provider.context_tokens,
        )

    async def _clone(self, sandbox: Sandbox) -> None:
        repo = self._spec.repo
        store, batch, patience = self._context.store, self._lease.job.batch, self._context.settings.cut_off_seconds
        known = repo.commit or await ask(patience, store.resolved_commit, batch, repo)
        prepared = await self._context.repositories.prepare(repo, ref_commit=known)
        if known is None:
            first = await ask(patience, store.resolve_commit, batch, repo, prepared.commit)
            if first != prepared.commit:  # another worker of the batch was first; its commit counts
                prepared = await self._context.repositories.prepare(repo, ref_commit=first)
        self._facts.commit, self._base_tar = prepared.commit, prepared.tar
        await clone_into(sandbox, prepared)

    async def _set_up(self, sandbox: Sandbox, line: str) -> None:
        await self._network.enter("setup")
        followed, self._facts.setup = await self._run_line(sandbox, "setup", line, SETUP_TIMEOUT_SECONDS)
        if followed.exit_status != 0:
            raise AttemptError(f"The setup command {how_it_ended(followed)}.", reason=Reason.SETUP)

    async def _run_agent(self, sandbox: Sandbox) -> Verdict:
        await self._network.enter("agent")
        reader = self._agent_adapter.reader()
        shows_events = self._agent_adapter.prints_events
        stderr_tail = bytearray()
        gateway = self._gateway
        limit, redactor = self._log_limit, self._context.redactor
        spec = StartSpec(
            argv=self._plan.argv,
            env=self._guest_env(self._plan.env),
            cwd=self._cwd,
            stdin_path=self._plan.stdin_path,
            timeout_seconds=self._spec.timeout_seconds,
            output_limit_bytes=limit,
            label=AGENT_LABEL,
        )
        again = self._adopted is not None
        with LiveLog(self._folder / LOG_FILE, self._outbox, limit_bytes=limit, again=again, redactor=redactor) as live:

            def on_output(chunk: RunChunk) -> None:
                if chunk.stream == "stdout":
                    events = reader.feed(chunk.data)
                    live.output(chunk.stream, chunk.data, events if shows_events else None)
                    self._events.agent(events)
                else:
                    live.output(chunk.stream, chunk.data)
                    stderr_tail.extend(chunk.data)
                    del stderr_tail[:-8192]

            run, started = await self._start_agent(sandbox, spec)
            followed = await follow_run(
                run,
                spec,
                on_output,
                started=started,
                idle_seconds=self._spec.idle_timeout_seconds,
                other_activity=(lambda: gateway.usage.last_activity) if gateway else (lambda: 0.0),
                enough=gateway.usage.enough if gateway else None,
                cpu_seconds=cpu_of(sandbox),
                finished=lambda: reader.finished,
            )
            if followed.cut:
                live.say_cut()
        await sandbox.kill_all()
        if self._facts.snapshot is None:
            self._facts.snapshot = await snapshot(sandbox, self._collect_spec)
            await self._note_going(started)
        verdict = await self._judge(sandbox, followed, reader, bytes(stderr_tail))
        self._facts.agent = self._facts.agent.model_copy(
            update={
                "exit_status": None if followed.lingered else followed.exit_status,
                "timed_out": followed.timed_out,
                "seconds": round(followed.seconds, 3),
                "stdout_bytes": followed.stdout_bytes,
                "stderr_bytes": followed.stderr_bytes,
                "log_cut": live.cut,
                "final_text": verdict.final_text,
            }
        )
        return verdict

    async def _start_agent(self, sandbox: Sandbox, spec: StartSpec) -> tuple[Run, float]:
        """The agent's run, and when it was started by the monotonic clock."""
        if self._adopted:
            return sandbox.started(spec.label), self._adopted.going.started
        started = time.monotonic()
        run = await sandbox.start(spec)
        await self._note_going(started)
        return run, started

    async def _note_going(self, started: float) -> None:
        """What the next worker needs to go on with this attempt, where its sandbox survives this one."""
        if not self._context.provider.capabilities.survives_worker:
            return
        going = self._facts.going(started, self._base_tar, self._plan.transcript_paths, self._route_token)
        self._entry = self._entry.model_copy(update={"going": going})
        try:
            await asyncio.to_thread(self._context.journal.write, self._entry)
        except OSError as error:
            log.warning("action=journal sandbox=%s: it cannot be adopted: %s", self._name, error)

    async def _judge(self, sandbox: Sandbox, followed: Followed, reader: AgentReader, stderr_tail: bytes) -> Verdict:
        usage = self._gateway.usage if self._gateway else None
        if usage and (verdict := stopped_by_route(usage, stopped=followed.stopped)):
            return verdict
        if followed.stalled:
            text = f"The agent was quiet for {self._spec.idle_timeout_seconds} s (idle_timeout) and was stopped."
            reason, why = (usage.blame(stalled=True) if usage else None) or (Reason.STALLED, "")
            return Verdict(Outcome.TIMED_OUT, reason, f"{text} {why}".strip())
        if followed.exit_status is None:
            return Verdict(Outcome.TIMED_OUT, Reason.AGENT, f"The agent {how_it_ended(followed)}.")
        verdict = reader.verdict(followed.exit_status, stderr_tail, await self._changed(sandbox, followed))
        if followed.lingered:
            stayed = "Its process stayed after its last word and was ended."
            verdict = replace(verdict, message=f"{verdict.message} {stayed}".strip())
        if verdict.outcome is not Outcome.FAILED:
            return verdict
        if (await sandbox.usage()).oom_kills:
            return Verdict(Outcome.FAILED, Reason.OOM, self._oom_text, verdict.final_text)
        if usage and verdict.reason is Reason.AGENT and (blamed := usage.blame()):
            verdict = replace(verdict, reason=blamed[0], message=f"{verdict.message} {blamed[1]}")
        if usage and usage.quota and verdict.reason is Reason.QUOTA and verdict.reset_at is None:
            verdict = replace(verdict, reset_at=usage.quota.reset_at)
        return verdict

    async def _changed(self, sandbox: Sandbox, followed: Followed) -> bool:
        """Whether the agent left anything: in the repository, or, looked at only when it was silent, beside it."""
        if (self._facts.snapshot and self._facts.snapshot.changed) or followed.stdout_bytes or followed.stderr_bytes:
            return bool(self._facts.snapshot and self._facts.snapshot.changed)
        younger = [
            "find",
            GUEST_WORK,
            "-path",
            GUEST_REPO,
            "-prune",
            "-o",
            "-type",
            "f",
            "-newer",
            PROMPT_PATH,
            "-print",
        ]
        return bool((await sandbox.run(younger)).stdout)

    async def _verify(self, sandbox: Sandbox, verify: Verify) -> Verified:
        """Run the job's verify command, here or in a second sandbox. Work that cannot be verified has failed."""
        if verify.where == "fresh":
            sandbox = await self._begin_afresh(sandbox)
            if problem := await self._put_work_into(sandbox):
                self._facts.verify = VerifyFacts(run=verify.run, where="fresh", passed=False, problem=problem)
                return Verified(False, problem)
        async with self._step(Step.VERIFYING):
            await make_reward_folder(sandbox)
            env = {REWARD_VARIABLE: REWARD_DIR}
            await self._network.enter("verify")
            followed, facts = await self._run_line(sandbox, "verify", verify.run, verify.timeout_seconds, env=env)
            reward = await read_reward(sandbox, self._folder / "verify", self._context.redactor)
        verified = verified_by(followed, reward)
        self._facts.verify = VerifyFacts(
            **facts.model_dump(),
            where=verify.where,
            passed=verified.passed,
            reward=reward.reward if reward else None,
            rewards=reward.rewards if reward else {},
            problem=reward.problem if reward else "",
        )
        return verified

    async def _begin_afresh(self, agents: Sandbox) -> Sandbox:
        """Keep what the agent left, destroy its sandbox, and make another with a clean clone. Never are both there, so
        what is booked for the attempt covers either."""
        await self._bring_back(agents, COLLECT_TIMEOUT_SECONDS)
        async with self._step(Step.DESTROYING):
            await self._stack.aclose()
            self._sandbox = None
            if not await destroy_sandbox(self._context, self._name):
                raise SandboxError(f"Sandbox '{self._name}' cannot be destroyed, so there is no room to verify in.")
        self._name = verify_name(self._name)
        async with self._step(Step.CREATING):
            sandbox = await self._create()
            await self._connect(sandbox)
        async with self._step(Step.CLONING):
            await self._clone(sandbox)
        return sandbox

    async def _put_work_into(self, sandbox: Sandbox) -> str | None:
        """The patch as it was kept, the job's own inputs, and its setup; or why that cannot be."""
        collected, snapshot = self._facts.collected, self._facts.snapshot
        if collected is None or collected.patch_bytes is None:
            why = snapshot.patch_missing if snapshot and snapshot.patch_missing else "It was not collected."
            return f"There is no patch to verify on a clean clone. {why}"
        refused = await apply_patch(sandbox, self._folder / PATCH_FILE) if collected.patch_bytes else None
        if refused:
            return f"The patch does not apply to a clean clone: {refused}"
        await push_files(sandbox, await asyncio.to_thread(self._read_inputs))
        if self._spec.setup:
            async with self._step(Step.SETUP):
                line, limit = self._spec.setup, SETUP_TIMEOUT_SECONDS
                await self._network.enter("setup")
                followed, _ = await self._run_line(sandbox, "setup", line, limit, output="verify/setup.log")
            if followed.exit_status != 0:
                return f"On a clean clone with the patch, the setup command {how_it_ended(followed)}."
        return None

    # The end

    async def _collect(self, ending: Ending) -> Ending:
        """Bring back what can still be read and make it durable; ``result.json`` comes last."""
        sandbox, interruption = self._sandbox, self._control.interruption
        gone = interruption is not None and interruption.stop in (Stop.DIED, Stop.LOST)
        if sandbox is not None and self._facts.collected is None and not gone:
            try:
                await self._bring_back(sandbox, HURRIED_COLLECT_SECONDS if interruption else COLLECT_TIMEOUT_SECONDS)
            except AttemptError as error:
                ending = _not_collected(ending, error)
        elif gone and self._facts.collected is None and ending.outcome is Outcome.SUCCEEDED:
            text = "The sandbox died before its results were collected."
            ending = failed_by(SandboxError(text))
        if self._gateway:
            await self._gateway.close()
        await self._network.close()
        try:  # nothing is accepted that is not on the disk (I7)
            write_result(self._folder, self._result(ending, ending.planned_state, accepted=True))
        except OSError as error:
            ending = _not_collected(ending, os_failure(error))
        return ending

    async def _bring_back(self, sandbox: Sandbox, seconds: float) -> None:
        """The collecting step. Raises AttemptError when not all came."""
        try:
            async with asyncio.timeout(seconds), self._step(Step.COLLECTING):
                await self._pull(sandbox, seconds)
        except TimeoutError as error:
            raise AttemptError(f"Collecting took longer than {seconds} s.") from error
        except OSError as error:
            raise os_failure(error) from error

    async def _pull(self, sandbox: Sandbox, seconds: float) -> None:
        """Everything that is kept, within this time: what came whole by then is kept."""
        await sandbox.kill_all()
        self._facts.saw_usage(await sandbox.usage())
        if self._facts.snapshot is None and self._facts.commit is not None:
            self._facts.snapshot = await snapshot(sandbox, self._collect_spec)
        limits = CollectLimits(total_bytes=self._context.settings.artifact_limit_mib * 2**20)
        self._facts.collected = await collect(
            sandbox,
            self._collect_spec,
            self._folder,
            limits,
            timeout_seconds=max(5, seconds - COLLECT_MARGIN_SECONDS),
            unpackers=self._context.unpackers,
        )

    async def _accept(self, ending: Ending) -> None:
        """Have the store accept the ending; a refused or returned attempt is kept as what it is."""
        ending = replace(ending, route=seen_at(self._gateway.usage if self._gateway else None))
        summary = self._result(ending, JobState.FINISHED, accepted=True).summary(self._folder)
        state = await accept(self._context.store, self._lease, ending, summary, self._control)
        stopped = self._control.interruption
        if state is not JobState.FINISHED:
            if stopped and stopped.stop is Stop.LOST:
                ending = interrupted_by(stopped)
            self._write_result(ending, state or ending.planned_state, accepted=False)
        elif self._control.overruled and stopped:  # the cancel or the deadline was accepted first
            self._write_result(interrupted_by(Interruption(self._control.overruled)), state, accepted=True)

    def _shown(self, ending: Ending) -> Ending:
        """What an error quoted may hold a secret; from here it goes to the store."""
        return replace(ending, message=self._context.redactor.text(ending.message))

    async def _destroy(self) -> None:
        try:
            await self._stack.aclose()
        except Exception:
            log.exception("action=close sandbox=%s failed", self._name)
        if self._sandbox and self._outcome and is_kept(self._spec.keep, self._outcome):
            if await keep_sandbox(self._context, self._name, self._lease.job.id):
                return
        await destroy_sandbox(self._context, self._name)

    # What the steps share

    @asynccontextmanager
    async def _step(self, step: Step) -> AsyncIterator[None]:
        """Say which step runs, and note how long it took. Telling the store never holds the attempt up."""
        log.info("action=step job=%s attempt=%d step=%s", self._lease.job.id, self._lease.attempt, step)
        self._outbox.post(step)
        self._events.ours("step", step=step.value)
        started = time.monotonic()
        try:
            yield
        finally:
            self._facts.steps.append(StepTime(step=step, seconds=round(time.monotonic() - started, 3)))

    async def _run_line(
        self,
        sandbox: Sandbox,
        label: str,
        line: str,
        seconds: float,
        *,
        env: Mapping[str, str] | None = None,
        output: str | None = None,
    ) -> tuple[Followed, CommandFacts]:
        """Run a ``sh -c`` line of the job in the repository; its output is kept beside the result."""
        name = output or f"{label}/output.log"
        (self._folder / name).parent.mkdir(exist_ok=True)
        spec = StartSpec(
            argv=("sh", "-c", line),
            env=self._guest_env(env or {}),
            cwd=self._cwd,
            timeout_seconds=seconds,
            output_limit_bytes=self._log_limit,
            label=f"{label}-{self._adopted.entry.adoptions}" if self._adopted else label,
        )
        again, limit, redactor = self._adopted is not None, self._log_limit, self._context.redactor
        with LiveLog(self._folder / name, self._outbox, limit_bytes=limit, again=again, redactor=redactor) as live:
            followed = await run_followed(sandbox, spec, lambda chunk: live.output(chunk.stream, chunk.data))
        await sandbox.kill_all()
        facts = CommandFacts(
            run=line,
            exit_status=followed.exit_status,
            timed_out=followed.timed_out,
            seconds=round(followed.seconds, 3),
            output=name,
        )
        return followed, facts

    def _tell(self, line: str) -> None:
        """A line of ours in the live log and among the events."""
        self._outbox.post(("tatin", f"{line}\n".encode()))
        self._events.ours("network", text=line)

    async def _watch_death(self, sandbox: Sandbox) -> None:
        self._control.interrupt(Stop.DIED, await sandbox.wait_dead())

    async def _watch_full(self, sandbox: Sandbox) -> None:
        self._control.interrupt(Stop.FULL, await sandbox.wait_full())

    async def _oom_or(self, ending: Ending) -> Ending:
        """A sandbox that died of its memory limit is out of memory, not broken."""
        if ending.reason is Reason.SANDBOX and self._sandbox and (await self._sandbox.usage()).oom_kills:
            return Ending(Outcome.FAILED, Reason.OOM, self._oom_text)
        return ending

    @property
    def _oom_text(self) -> str:
        return f"The sandbox ran out of its {self._need.memory_mib} MiB of memory; ask for more with resources.memory."

    def _read_inputs(self) -> dict[str, bytes]:
        blobs, spec = self._context.blobs, self._spec
        prompt = blobs.path(spec.prompt_blob).read_bytes() if spec.prompt_blob else (spec.prompt or "").encode()
        inputs = {f"{GUEST_WORK}/{item.name}": blobs.path(item.blob).read_bytes() for item in spec.inputs}
        return {PROMPT_PATH: prompt, **inputs}

    def _sandbox_spec(self, tools: list[InstalledTool]) -> SandboxSpec:
        return SandboxSpec(
            name=self._name,
            cpus=self._need.cpus,
            memory_mib=self._need.memory_mib,
            disk_mib=self._need.disk_mib,
            image=self._spec.image,
            tools=tuple(ToolMount(tool.folder, tool.guest_folder) for tool in tools),
        )

    def _result(self, ending: Ending, state: JobState, *, accepted: bool) -> Result:
        worker = self._context.settings.worker_name
        result = self._facts.result(ending, worker, self._events, state, accepted=accepted)
        return Result.model_validate(self._context.redactor.tree(result.model_dump()))

    def _write_result(self, ending: Ending, state: JobState, *, accepted: bool) -> None:
        try:
            write_result(self._folder, self._result(ending, state, accepted=accepted))
        except OSError as error:
            log.error("action=result job=%s failed: %s", self._lease.job.id, error)  # noqa: TRY400

    def _guest_env(self, more: Mapping[str, str]) -> dict[str, str]:
        ours = {"TATIN_JOB_ID": self._lease.job.id, "TATIN_ATTEMPT": str(self._lease.attempt)}
        return {**self._spec.env, **self._network.environment(), **self._secrets, **more, **ours}

    @property
    def _cwd(self) -> str:
        subdir = self._spec.repo.subdir
        return f"{GUEST_REPO}/{subdir}" if subdir else GUEST_REPO

    @property
    def _log_limit(self) -> int:
        return self._context.settings.log_limit_mib * 2**20

    @property
    def _agent_adapter(self) -> AgentAdapter:
        return adapter(self._spec.tool, self._context.settings.agent_classes)

    @property
    def _collect_spec(self) -> CollectSpec:
        return CollectSpec(
            base_commit=self._facts.commit,
            base_tar=self._base_tar,
            artifact_globs=self._spec.artifacts,
            transcript_paths=tuple(self._plan.transcript_paths),
        )


def _not_collected(ending: Ending, error: AttemptError) -> Ending:
    """Success without its results is no success; another ending stays what it was, and says so."""
    if ending.outcome is Outcome.SUCCEEDED or isinstance(error, DiskFull):
        return failed_by(error)
    return replace(ending, message=f"{ending.message} Not all was collected: {error.what}")
