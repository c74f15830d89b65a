-- A heap of the streams that are read, by the places of their next entries: put the top one where it belongs now.
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
