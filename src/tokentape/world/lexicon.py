"""The words of the little world, with the Chinese of those that are translated."""

from __future__ import annotations

BOYS = tuple(
    "Tom Ben Sam Max Leo Jack Paul Mark Adam Luke Hugo Oscar Peter David Simon Felix Henry Oliver Robin Victor "
    "Daniel Martin Lucas Karl Ali Omar Ivan Jin Wei Raj".split()
)
GIRLS = tuple(
    "Anna Lily Mia Emma Rosa Sara Ella Lucy Clara Nina Eva Julia Maria Alice Sofia Grace Helen Laura Ruth Jane "
    "Kate Amy Zoe Nora Mei Ying Priya Leila Hana Yuki".split()
)
NAMES = BOYS + GIRLS

ANIMALS_ZH = {
    "cat": "猫", "dog": "狗", "bird": "鸟", "horse": "马", "cow": "牛", "sheep": "羊", "rabbit": "兔子", "mouse": "老鼠",
    "duck": "鸭子", "pig": "猪", "fox": "狐狸", "bear": "熊", "monkey": "猴子", "frog": "青蛙", "tiger": "老虎",
    "hen": "母鸡",
}  # fmt: skip
PEOPLE_ZH = {
    "boy": "男孩", "girl": "女孩", "man": "男人", "woman": "女人", "teacher": "老师", "doctor": "医生", "farmer": "农民",
    "baker": "面包师", "painter": "画家", "king": "国王", "queen": "王后", "student": "学生", "driver": "司机",
    "singer": "歌手",
}  # fmt: skip
PLACES_ZH = {
    "park": "公园", "school": "学校", "garden": "花园", "market": "市场", "library": "图书馆", "kitchen": "厨房",
    "forest": "森林", "beach": "海滩", "museum": "博物馆", "station": "车站", "farm": "农场", "church": "教堂",
    "hospital": "医院", "bakery": "面包店", "office": "办公室", "village": "村子", "castle": "城堡", "cinema": "电影院",
    "zoo": "动物园", "hotel": "旅馆", "theatre": "剧院", "shop": "商店", "bank": "银行", "harbour": "港口",
}  # fmt: skip
THINGS_ZH = {
    "ball": "球", "kite": "风筝", "book": "书", "doll": "娃娃", "drum": "鼓", "cup": "杯子", "hat": "帽子", "lamp": "灯",
    "map": "地图", "key": "钥匙", "coin": "硬币", "pen": "钢笔", "box": "盒子", "bag": "书包", "car": "汽车", "ring": "戒指",
    "boat": "船", "clock": "钟", "flute": "笛子", "basket": "篮子", "camera": "相机", "puzzle": "拼图", "bottle": "瓶子",
    "candle": "蜡烛",
}  # fmt: skip
SURFACES_ZH = {
    "mat": "垫子", "chair": "椅子", "table": "桌子", "bed": "床", "floor": "地板", "sofa": "沙发", "roof": "屋顶",
    "wall": "墙", "rock": "石头", "grass": "草地",
}  # fmt: skip
COLOURS_ZH = {
    "red": "红色", "blue": "蓝色", "green": "绿色", "yellow": "黄色", "white": "白色", "black": "黑色", "brown": "棕色",
    "pink": "粉色",
}  # fmt: skip
SIZES_ZH = {"small": "小", "big": "大", "old": "老", "young": "年轻的", "poor": "可怜的", "clever": "聪明的"}
MOODS_ZH = {
    "happy": "高兴", "tired": "累", "hungry": "饿", "angry": "生气", "sad": "难过", "afraid": "害怕", "cold": "冷",
    "thirsty": "渴",
}  # fmt: skip

POSTURES_ZH = {"sat": "坐", "slept": "睡", "stood": "站", "lay": "躺"}
ACTIVITIES_ZH = {"played": "玩", "waited": "等", "worked": "工作", "sang": "唱歌", "danced": "跳舞", "ate": "吃饭"}
DEEDS_ZH = {
    "saw": "看见了", "found": "找到了", "lost": "弄丢了", "bought": "买了", "wanted": "想要", "liked": "喜欢", "took": "拿走了",
    "hid": "藏起了",
}  # fmt: skip
TRIPS_ZH = {"went to": "去了", "ran to": "跑到了", "walked to": "走到了", "came to": "来到了", "left": "离开了"}

PLACES = tuple(PLACES_ZH)
THINGS = tuple(THINGS_ZH)
ANIMALS = tuple(ANIMALS_ZH)
SURFACES = tuple(SURFACES_ZH)
COLOURS = tuple(COLOURS_ZH)
MOODS = tuple(MOODS_ZH)
SIZES = tuple(SIZES_ZH)
