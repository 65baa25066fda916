"""Every bound of the platform, by name and unit. What exceeds one is refused, and told so."""

from __future__ import annotations

# What a request may ask for.
BODY_BYTES_MAX = 64 * 1024  # of one HTTP request
PROMPT_CHARS_MAX = 2_000  # of the prompt, and of the negative prompt
SIZE_PX_MIN = 64  # of width and of height, each
SIZE_PX_MAX = 2_048  # of width and of height; a model may allow less
SIZE_PX_MULTIPLE = 8  # latents are an eighth of the picture
STEPS_MIN = 1
STEPS_MAX = 100
GUIDANCE_MIN = 0.0  # at most 1 turns classifier-free guidance off
GUIDANCE_MAX = 20.0
SEED_MAX = 2**32 - 1  # smallest is 0
IMAGES_PER_JOB_MAX = 4
LORAS_PER_JOB_MAX = 5
LORA_WEIGHT_MIN = -4.0
LORA_WEIGHT_MAX = 4.0
CONTROLS_PER_JOB_MAX = 3
CONTROL_WEIGHT_MIN = 0.0
CONTROL_WEIGHT_MAX = 2.0
STRENGTH_MAX = 1.0  # the smallest is what leaves one step
UPSCALE_PX_MAX = 4_096  # of each side of an upscaled picture; what the model may draw is less
UPSCALE_STEPS_MIN = 20  # where left open: of few, a weak strength leaves next to none

# Pictures that people send.
PICTURE_BYTES_MAX = 16 * 1024 * 1024  # of the file
PICTURE_PX_MIN = 16  # of each side
PICTURE_PX_MAX = 4_096  # of each side; looked at before anything is decoded
PICTURES_PER_TENANT_MAX = 1_000  # kept at one time
PICTURE_BYTES_PER_TENANT_MAX = 2 * 1024**3
PICTURE_KEPT_S = 7 * 24 * 3600.0  # after it was last sent or named by a job
PICTURE_SWEEP_S = 3_600.0  # between two looks for those that are kept no longer

# What the registry of models takes.
HEADER_BYTES_MAX = 16 * 1024 * 1024  # of a safetensors file: names, shapes and what it tells
MODEL_TENSORS_MAX = 65_536  # in one file
TENSOR_SIDES_MAX = 8  # of one tensor: numbers in its shape
MODEL_JSON_BYTES_MAX = 4 * 1024 * 1024  # of a configuration or an index
MODEL_FILES_MAX = 1_000  # in one folder of a model
MODEL_BYTES_MAX = 512 * 1024**3  # of all its files
MODEL_NAME_CHARS_MAX = 100  # of a name, and of an alias
MODEL_VERSIONS_MAX = 1_000  # of one name
ALIASES_MAX = 32  # of one name
ALIAS_PAST_MAX = 100  # changes of an alias that are kept
CLASSIFIER_LABELS_MAX = 1_000
HUB_S_MAX = 30.0  # for a hub to say what it has
REGISTRY_LOCK_S_MAX = 30.0  # for another process to let go of it
REGISTRY_LOOK_S = 2.0  # between two looks of a server at whether models came or went
WATCHED_FILES_MAX = 20_000  # looked at then, outside the registry

# What the platform holds.
QUEUED_JOBS_MAX = 10_000  # in the line; one more is refused with 429
QUEUED_JOBS_PER_TENANT_MAX = 1_000
EVENTS_PER_JOB_MAX = 4_000  # in a job's log; past it only state changes are written
EVENT_STREAMS_MAX = 1_000  # server-sent event connections at one time
PAGE_JOBS_MAX = 100  # jobs in one page of a listing
ATTEMPTS_MAX = 3  # runs of one job before it fails for good
ATTEMPTS_TOTAL_MAX = 2 * ATTEMPTS_MAX  # the same, with those that a restarted server lost
RELAX_WAIT_S_MAX = 300.0  # a relax job that waited this long is promoted
RELAX_SHARE_MIN = 0.05  # of device-seconds, whatever is reserved for other tiers
PROMOTED_S_MAX = 10.0  # device-seconds, for each engine, that promoted jobs may run ahead of the
# share of their tier; paid back out of it afterwards
FLOOR_LAG_S_MAX = 10.0  # device-seconds, for each engine, that a tier may be behind its floor
AFFINITY_PASSES_MAX = 64  # for each engine: jobs that may pass one whose model isn't warm ...
AFFINITY_S_MAX = 10.0  # ... for at most this long, or as long as its load takes
PREDICTION_S = 5.0  # between two looks at what is to be expected
LINE_TICK_S = 60.0  # a line that loads models is told of the time so often though nothing happens
PREDICTION_WORTH_S = 1_800.0  # what is loaded before it is asked for has to pay in this time
POSITIONS_EXACT_MAX = 10_000  # jobs waiting; with more, a place in the line is an upper estimate
FORECAST_STARTS_MAX = 256  # that the policy is run forward for time estimates; beyond: extrapolated
FORECAST_SHARE_MAX = 0.1  # of the server's time that may be spent on forecasts
FORECAST_KEPT_S = 1.0  # a forecast serves no longer than this, though nothing changed
ETA_EVENTS_S = 1.0  # between two looks at when a followed job that waits will be done
ETA_SEEN_MIN = 20  # jobs told a time; after fewer a recipe is judged by all of its tier
ETA_RECIPES_KEPT_MAX = 128  # of recipes by tier and outlook; the one used longest ago is forgotten
BREAKER_FAILURES_MAX = 3  # in a row, before something isn't tried for a while
BREAKER_OPEN_S_MIN = 30.0  # not tried for this long; doubles each time a try fails ...
BREAKER_OPEN_S_MAX = 600.0  # ... up to this
BREAKER_PROBE_S_MAX = 120.0  # a single try that says nothing for this long counts as failed
BREAKERS_KEPT_MAX = 10_000  # with a failure to remember; past it the oldest is forgotten
RETRY_AFTER_S_MAX = 3_600  # the longest wait that a refused caller is told by estimate
BUDGET_PERIOD_S = 30 * 24 * 3600.0  # a tenant's month
SAFETY_RETRY_S = 30.0  # a picture that can't be judged is made and judged again after this
SAFETY_TRIES_MAX = 20  # runs of one job that end unjudged before it fails for good
STORE_TRIES_MAX = 5  # of one write to the job store, before the server gives up
STORE_RETRY_S = 0.5  # between two tries of such a write
STORE_AWAY_S_MAX = 30.0  # for such a write to wait for a database that can't be reached
STORE_AWAY_RETRY_S = 2  # a caller is told to ask again after this, while it can't
RECORD_BYTES_MAX = 4 * 1024**3  # of a recording of the line; past it no more is written
RECORD_LINE_BYTES_MAX = 64 * 1024**2  # one line of it: what everyone was charged, at a start
LEASE_S = 30.0  # a lease not renewed by a heartbeat this long is lost
HEARTBEAT_S = 10.0  # between an engine's signs of life
HEARTBEATS_SUSPECT = 2  # so many without one: nothing new is given to the engine ...
HEARTBEATS_DEAD = 3  # ... and so many: it is killed, and its work done by others
SLOW_FACTOR = 4.0  # an engine that takes so many times what jobs should cost is slow ...
SLOW_JOBS = 3  # ... after so many in a row
SLOW_AGAIN_S = 600.0  # after it was restarted for that, before it may be again
ENGINE_ROWS_MAX = 24  # rows an engine holds at once (those that step and those that wait)
ENGINE_ROWS_SPARE = 8  # of them, that relax leaves to others; fast leaves half as many to turbo.
# Parking a row costs nothing, waiting for the end of one costs a picture's time.
ENGINE_MESSAGE_BYTES_MAX = 64 * 1024 * 1024  # one message between the pool and an engine
ENGINE_START_S_MAX = 120.0  # from starting an engine's process to its first sign of life
ENGINE_LOAD_S_MAX = 1_800.0  # for an engine to load one model and prove its batch sizes
FRAGMENTATION_MAX = 0.5  # share of a device's free bytes outside its largest free block; past it
# models are laid anew when nobody waits
ENGINE_STUCK_S_MAX = 300.0  # an engine that has rows and makes no step this long is ended;
# long enough for one pass of a large model on a CPU
ENGINE_STOP_S_MAX = 5.0  # for an engine to end by itself before it is killed
ENGINE_BACKOFF_S_MIN = 0.5  # before a dead engine is started again; doubles each time ...
ENGINE_BACKOFF_S_MAX = 30.0  # ... up to this, and is back at the smallest ...
ENGINE_HEALTHY_S = 60.0  # ... once an engine was ready this long
ENGINE_REPORTS_HELD_MAX = 32  # reports of engines not yet taken; then the sockets wait
ENGINE_LOG_BYTES_MAX = 1024 * 1024  # an engine's log past it starts over with the next process
SERVER_LOG_BYTES_MAX = 4 * 1024 * 1024  # of the server's log; past it the one before is dropped
LOG_LINES_MAX = 10_000  # of one log that a command shows of what was
ENGINE_COMMANDS_MAX = 256  # read ahead of an engine's loop; past it the server's writes wait
ROW_WAITS_PASSES_MAX = 256  # of its own length: a row that waits longer is next
DECODES_HELD_MAX = 4  # finished rows that wait to be decoded; past it the loop waits
CURVE_S_MAX = 3.0  # for timing the batch sizes of one size of picture, past the first round
ENCODINGS_CACHED_MAX = 256  # text encodings an engine keeps
ADAPTERS_READ_MAX = 16  # LoRAs and ControlNets that an engine reads, or has yet to, at one time
LORA_FILE_BYTES_MAX = 2 * 1024**3
LORA_HEADER_BYTES_MAX = 4 * 1024 * 1024  # of a LoRA's file: names, shapes and what it tells
LORA_TENSORS_MAX = 8_192  # in one file; a large one for SDXL has 2,400
LORA_RANK_MAX = 256
LORAS_BYTES_MAX = 4 * 1024**3  # of the LoRAs that one base model keeps on its device
PICTURES_PER_ROW_MAX = 8  # that one row brings to an engine: source, mask, what guides it
CONTROL_BYTES_MAX = 16 * 1024**3  # of one ControlNet's weights as they lie on disk
LOAD_TOLD_S = 0.5  # between two words of an engine on how far the reading of a model is
LOADING_TOLD_MAX = 16  # waiting jobs whose logs say that their model is being loaded
LEDGER_LOOKED_AT_S = 1.0  # between two looks of an engine at what its memory is used for
CONTROLS_BYTES_MAX = 24 * 1024**3  # of all that an engine keeps for rows to come
SIZES_PROVEN_MAX = 256  # sizes of pictures whose proven batch sizes an engine remembers, each
# model's on disk too
PREVIEWS_PER_IMAGE_MAX = 10  # denoising previews sent for one picture
FINISHES_MAX = 4  # pictures being judged, encoded and signed at one time
FINISH_S_MAX = 120.0  # for one of them; past it the processes that do it are replaced
KEY_NAME_CHARS_MAX = 100
IDEMPOTENCY_KEY_CHARS_MAX = 255
IDEMPOTENCY_KEPT_S = 24 * 3_600  # a request sent again within this time makes no other job
IDEMPOTENCY_SWEEP_S = 3_600.0  # between two looks for keys that are kept no longer
CHECK_S_MAX = 60.0  # for all checks of the pictures that an engine has them look at together
CHECK_POLICY_CHARS_MAX = 20_000  # of the policy in words that a check is asked by
HASHES_MAX = 5_000_000  # of known pictures, in all lists; each costs about 100 bytes a process
HASH_LIST_BYTES_MAX = 1024**3  # of one list
LINK_TTL_S = 3_600  # a signed picture address stays good this long
PICTURE_KNOWN_S = 5.0  # what is known of a delivered picture is looked up anew after this
PICTURES_KNOWN_MAX = 10_000  # of which something is known without asking the store
FILES_HOT_BYTES_MAX = 64 * 1024**2  # of pictures' files that were served lately, in memory
RENDITIONS_WAITING_MAX = 64  # forms and sizes of pictures being made at one time, or waiting to be
PRESIGNED_S_MAX = 300  # an address at a bucket is good for this long
EXPIRED_AT_ONCE_MAX = 100  # pictures past their time that are looked up at once
PURGED_AT_ONCE_MAX = 30  # pictures in one request to caches; more than some CDNs take is refused
PURGE_S_MAX = 10.0  # for such a request
VERIFIES_AT_ONCE_MAX = 1  # files looked at to tell where they came from; finishing goes on beside
VERIFIES_WAITING_MAX = 8  # of which others wait
WEBHOOKS_PER_TENANT_MAX = 10
WEBHOOK_URL_CHARS_MAX = 2_000
WEBHOOK_S_MAX = 15.0  # for a receiver to take one message and answer
WEBHOOK_ANSWER_BYTES_MAX = 64 * 1024  # read of an answer; of a longer one the rest is left
WEBHOOK_POLL_S = 1.0  # between two looks for what is due
WEBHOOKS_AT_ONCE_MAX = 64  # webhooks that are sent to at one time, one message each
WEBHOOK_MESSAGES_AT_ONCE = 200  # due messages looked up at once
WEBHOOK_MESSAGES_KEPT_S = 30 * 24 * 3600.0  # after they were sent, or given up
WEBHOOK_MESSAGES_KEPT_MAX = 10_000  # of one webhook that are looked through for a replay
WEBHOOK_SECRETS_OVERLAP_S = 24 * 3600.0  # after a change both secrets sign
