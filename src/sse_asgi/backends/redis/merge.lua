-- A heap of streams, ordered by the places of their next entries: move the top stream to its new place.
local function sift(heap)
    local at, head, size = 1, heap[1], #heap
    while true do
        local child = at * 2
        if child < size and heap[child + 1].place < heap[child].place then child = child + 1 end
        if child > size or heap[child].place >= head.place then break end
        heap[at], at = heap[child], child
    end
    heap[at] = head
end
