-- The health of AppServers and ServerGroups for Argo CD: one script for both kinds. docs/gitops.md describes how to install it.
local function health(status, condition)
  return {status = status, message = condition and condition.message or ""}
end

if obj.metadata.deletionTimestamp ~= nil then
  return {status = "Progressing", message = "is being deleted"}
end
if obj.status == nil or obj.status.observedGeneration ~= obj.metadata.generation then
  return {status = "Progressing", message = "waiting for the operator to observe the new spec"}
end

local conditions = {}
for _, condition in ipairs(obj.status.conditions or {}) do
  conditions[condition.type] = condition
end
local function holds(kind)
  return conditions[kind] ~= nil and conditions[kind].status == "True"
end

if holds("Stalled") then
  return health("Degraded", conditions.Stalled)
end
if holds("Reconciling") then
  return health("Progressing", conditions.Reconciling)
end
if holds("Ready") then
  return health("Healthy", conditions.Ready)
end
-- Nothing is in progress, but the spec's state is not reached: an annotation suspends the object.
local suspended = conditions.Suspended
if holds("Suspended") or (suspended ~= nil and suspended.reason == "SomeSuspended") then
  return health("Suspended", conditions.Ready)
end
return health("Progressing", conditions.Ready)
